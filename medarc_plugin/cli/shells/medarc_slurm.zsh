#compdef @NAMES@
# Completes medarc_slurm in zsh; `medarc_slurm completion zsh` prints this.
# In ~/.zshrc, behind compinit: source <(medarc_slurm completion zsh). Or as a file _medarc_slurm on $fpath.

_medarc_slurm() {
    local line kind value help program="${(Q)words[1]}" name="${${(Q)words[1]}:t}"
    local -a answers plain
    program="${program/#\~\//$HOME/}"
    if [[ $name != medarc_slurm ]] || ! whence -p -- "$program" >/dev/null; then
        program=@PROGRAM@
    fi
    answers=("${(@f)$("$program" _complete zsh "$name" "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    for line in "${answers[@]}"; do
        kind="${line%%$'\t'*}"
        line="${line#*$'\t'}"
        value="${line%%$'\t'*}"
        help="${line#*$'\t'}"
        case "$kind" in
        plain) plain+=("${value//:/\\:}${help:+:$help}") ;;
        config) [[ $PREFIX == --*=* ]] && compset -P '*='; _files -g '*.toml' ;;
        dir) [[ $PREFIX == --*=* ]] && compset -P '*='; _files -/ ;;
        file) [[ $PREFIX == --*=* ]] && compset -P '*='; _files ;;
        esac
    done
    if (( ${#plain} )); then
        _describe -V "$name" plain
    fi
}

# Read from a file on $fpath, this is the function's body already.
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _medarc_slurm "$@"
else
    compdef _medarc_slurm @NAMES@
fi
