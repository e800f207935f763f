# Completes medarc_slurm in bash 4.4 and newer; `medarc_slurm completion bash` prints this.
# In ~/.bashrc: source <(medarc_slurm completion bash)

_medarc_slurm() {
    local kind value help program="$1" current="$2" first=0
    # The words before the cursor. In bash `--a=b` is three of them, and the program puts them together again.
    local -a words=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
    if [[ ${COMP_WORDS[COMP_CWORD]} == = ]]; then
        words+=("=")
    fi
    if [[ $program != *medarc_slurm ]]; then
        first=1
    fi
    program="${program/#\~\//$HOME/}"
    if ((first)) || ! type -P -- "$program" >/dev/null; then
        program=@PROGRAM@
    fi
    COMPREPLY=()
    while IFS=$'\t' read -r kind value help; do
        case "$kind" in
        plain)
            printf -v value %q "$value"
            COMPREPLY+=("$value")
            ;;
        config)
            mapfile -t COMPREPLY < <(compgen -f -X '!*.toml' -- "$current")
            compopt -o filenames -o plusdirs -o default
            ;;
        dir) compopt -o dirnames -o filenames ;;
        file) compopt -o default ;;
        esac
    done < <("$program" _complete bash "${1##*/}" "${words[@]}" "$current" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace
    fi
    : "$help"
}

complete -F _medarc_slurm @NAMES@
