# Completes medarc_slurm in fish; `medarc_slurm completion fish` prints this.
# In ~/.config/fish/completions/medarc_slurm.fish: medarc_slurm completion fish | source

function __medarc_slurm_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l name (string split -r -m1 / -- $words[1])[-1]
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    if test $name != medarc_slurm; or not command -sq -- $program
        set program @PROGRAM@
    end
    # A path behind `--option=` is completed without it.
    set -l head ""
    string match -qr -- '^--[^=]*=' $current; and set head (string match -r -- '^--[^=]*=' $current)
    set -l rest (string replace -r -- '^--[^=]*=' '' $current)
    for line in ($program _complete fish $name $words[2..-1] "$current" 2>/dev/null)
        set -l parts (string split \t -- $line)
        switch $parts[1]
            case plain
                printf '%s\t%s\n' $parts[2] "$parts[3]"
            case dir
                for path in (__fish_complete_directories "$rest" '')
                    printf '%s%s\n' $head $path
                end
            case config file
                for path in (__fish_complete_path "$rest")
                    printf '%s%s\n' $head $path
                end
        end
    end
end

for name in @NAMES@
    complete -c $name -f -a '(__medarc_slurm_complete)'
end
