# Completes handclr in bash: to be sourced, or found by bash-completion.

_handclr() {
    local current=$2 line=${COMP_LINE:0:COMP_POINT} offer help found
    COMPREPLY=()
    if [[ $3 == *[\<\>]* || ${COMP_WORDS[COMP_CWORD]} == [\<\>]* ]]; then
        compopt -o default
        return
    fi
    # A space at the end begins a new word, unless it is part of this one.
    if [[ -n $current ]]; then
        line=${line%"${line##*[![:space:]]}"}
    fi
    # Completions are names, not what was typed for them.
    current=${current//\\/}
    while IFS=$'\t' read -r offer help; do
        case $offer in
            '*/')
                compopt -o filenames
                mapfile -t found < <(compgen -d -- "$current")
                COMPREPLY+=("${found[@]}")
                ;;
            '*'*)
                compopt -o filenames
                mapfile -t found < <(compgen -f -X "!$offer" -- "$current")
                COMPREPLY+=("${found[@]}")
                ;;
            "$current"*)
                [[ -n $offer ]] && COMPREPLY+=("$offer")
                ;;
        esac
    done < <(
        _HANDCLR_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
            _TYPER_COMPLETE_ARGS=$line "${1/#\~\//$HOME/}" 2> /dev/null
    )
}

complete -F _handclr handclr
