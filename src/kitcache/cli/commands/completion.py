"""kitcache completion: print a script that completes kitcache's words in a shell.

A script is a few lines: at each Tab it asks `kitcache __complete`, which has all options and reads
the tags of the given cache.
"""

import argparse

from kitcache.cli import options
from kitcache.cli.console import Console
from kitcache.cli.terminal import print_stdout

# For the words of another command bash needs bash-completion, which is nearly always installed.
_BASH = r"""# bash completion for kitcache
_kitcache() {
    local program=$1 answer
    type -P -- "$program" >/dev/null || program=kitcache
    mapfile -t answer < <("$program" __complete bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    COMPREPLY=()
    case ${answer[0]} in
        words) COMPREPLY=("${answer[@]:1}") ;;
        dirs) compopt -o dirnames ;;
        files) compopt -o default ;;
        command*)
            local first=$((${answer[0]#command } + 1))
            if declare -F _comp_command_offset >/dev/null; then
                _comp_command_offset "$first"
            elif declare -F _command_offset >/dev/null; then
                _command_offset "$first"
            elif ((COMP_CWORD == first)); then
                mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
            else
                compopt -o default
            fi
            ;;
    esac
}
complete -F _kitcache kitcache
"""

_ZSH = r"""#compdef kitcache
_kitcache() {
    local -a answer
    answer=("${(@f)$(_call_program kitcache "${(q)words[1]}" __complete zsh \
        "${(@q)${(@Q)words[2,CURRENT]}}" 2>/dev/null)}")
    [[ $answer[1] == command* ]] || [[ $PREFIX != --*=* ]] || compset -P '*='
    case $answer[1] in
        words)
            shift answer
            (($#answer)) && _describe -V kitcache answer
            ;;
        dirs) _path_files -/ ;;
        files) _files ;;
        command*)
            local -i first=$((${answer[1]#command } + 1))
            shift $first words
            ((CURRENT -= first))
            _normal
            ;;
    esac
}
if [[ $funcstack[1] == _kitcache ]]; then
    _kitcache "$@"
else
    compdef _kitcache kitcache
fi
"""

_FISH = r"""# fish completion for kitcache
function __kitcache_complete
    set -l current (commandline -ct)
    set -l typed (commandline -opc)
    set -l answer ($typed[1] __complete fish $typed[2..-1] "$current" 2>/dev/null)
    set -l prefix (string match -r -- '^--[^=]*=' $current)
    set -l begun (string replace -r -- '^--[^=]*=' '' $current)
    switch "$answer[1]"
        case words
            test (count $answer) -gt 1; and printf '%s\n' $answer[2..-1]
        case dirs
            string replace -r -- '^' "$prefix" (__fish_complete_directories "$begun")
        case files
            string replace -r -- '^' "$prefix" (__fish_complete_path "$begun")
        case 'command *'
            set -l first (math (string replace 'command ' '' -- $answer[1]) + 2)
            set -l words (string escape -- $typed[$first..-1])
            complete -C (string join ' ' -- $words $current)
    end
end
complete -c kitcache -f -a '(__kitcache_complete)'
"""

# A completed word may continue, such as a directory, so tcsh must not append a space.
_TCSH = r"""# tcsh completion for kitcache
complete kitcache 'p,*,`kitcache __complete tcsh "$COMMAND_LINE"`,,'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH, "tcsh": _TCSH}

COMMAND = options.Command(
    description="""\
Prints a completion script for a shell. Save it where the shell looks for such
files. It completes commands, options, directories and files, the tags of the
given cache directory, and after `exec --` the words of that command, if the
shell can complete them.""",
    epilog="""\
examples:
  kitcache completion bash > ~/.local/share/bash-completion/completions/kitcache
  kitcache completion zsh > ~/.zfunc/_kitcache
      with fpath+=~/.zfunc before compinit in ~/.zshrc
  kitcache completion fish > ~/.config/fish/completions/kitcache.fish
  kitcache completion tcsh >> ~/.tcshrc""",
    arguments=(
        options.argument(
            "shell", "SHELL", f"one of {', '.join(_SCRIPTS)}", choices=tuple(_SCRIPTS)
        ),
    ),
    effect="",
)


def run(args: argparse.Namespace, console: Console) -> int:  # noqa: ARG001
    """Print the script."""
    print_stdout(_SCRIPTS[args.shell].rstrip())
    return 0
