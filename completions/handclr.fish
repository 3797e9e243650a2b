# Completes handclr in fish: from a folder of $fish_complete_path, or sourced.

function __handclr_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    # Of --option=value, the value is completed.
    set -l option (string match -r -- '^--[^=]*=' $current)
    set -l value (string replace -- "$option" '' $current)
    # A space at the end would begin a new word.
    set -l typed (string escape -- $before "$current" | string join ' ' | string trim --right)
    set -l program (string replace -r '^~/' "$HOME/" -- $before[1])
    for offer in (env _HANDCLR_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS="$typed" $program 2>/dev/null)
        if string match -q '\**' -- $offer
            for file in (complete -C "'' $value")
                set -l name (string split -m 1 \t -- $file)[1]
                string match -q -- $offer $name
                and echo "$option$name"
            end
        else
            echo "$option$offer"
        end
    end
end

complete --command handclr --no-files --arguments '(__handclr_complete)'
