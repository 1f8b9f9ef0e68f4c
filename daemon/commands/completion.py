"""`tickerd completion SHELL`: a script that completes the command line in bash, zsh or fish, made from the parser.

Values are completed where there are few of them, and where they are files. A daemon is never asked for its channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from daemon.commands.outline import Argument, Command


def _bash(commands: Sequence[Command]) -> Iterator[str]:
    program, *others = commands
    yield "# Completion of tickerd for bash. Once: source <(tickerd completion bash)"
    yield "# For good: tickerd completion bash > ~/.local/share/bash-completion/completions/tickerd"
    yield "_tickerd() {"
    yield "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}"
    yield "    local command= words= files= index"
    yield "    for (( index = 1; index < COMP_CWORD; index++ )); do"
    yield "        case ${COMP_WORDS[index]} in"
    yield "            -*) ;;"
    yield "            *) command=${COMP_WORDS[index]}; break ;;"
    yield "        esac"
    yield "    done"
    yield '    case "$command $previous" in'
    for command in others:
        for option in (option for option in command.options if option.value):
            pattern = "|".join(f'"{command.name} {name}"' for name in option.names)
            done = (
                "files=1" if option.is_file else f'words="{" ".join(option.choices)}"' if option.choices else "return"
            )
            yield f"        {pattern}) {done} ;;"
    yield "        *)"
    yield "            case $command in"
    for command in commands:
        pattern = command.name or '""'
        words = [each.name for each in others] if command is program else []
        words += [choice for word in command.words for choice in word.choices]
        files = " files=1" if any(word.is_file for word in command.words) else ""
        options = " ".join(name for option in command.options for name in option.names)
        yield f"                {pattern})"
        yield f'                    words="{" ".join(words)}"{files}'
        yield f'                    [[ $current == -* ]] && words="{options}" && files='
        yield "                    ;;"
    yield "            esac"
    yield "            ;;"
    yield "    esac"
    yield "    local IFS=$'\\n'"
    yield "    if [[ -n $files ]]; then"
    yield "        compopt -o filenames 2>/dev/null"
    yield '        COMPREPLY=( $(compgen -f -- "$current") )'
    yield "    else"
    yield '        COMPREPLY=( $(compgen -W "${words// /$IFS}" -- "$current") )'
    yield "    fi"
    yield "}"
    yield "complete -F _tickerd tickerd"


def _zsh(commands: Sequence[Command]) -> Iterator[str]:
    program, *others = commands
    yield "#compdef tickerd"
    yield "# Completion of tickerd for zsh. Once: source <(tickerd completion zsh)"
    yield "# For good: tickerd completion zsh > DIR/_tickerd, DIR being a folder of $fpath"
    yield "_tickerd() {"
    yield "    local context state line"
    yield "    typeset -A opt_args"
    yield f"    _arguments -C {' '.join(_zsh_specs(program))} '1:command:->command' '*::argument:->argument'"
    yield "    case $state in"
    yield "        command)"
    yield "            local -a commands"
    yield f"            commands=({' '.join(_single(f'{each.name}:{each.summary}') for each in others)})"
    yield "            _describe command commands"
    yield "            ;;"
    yield "        argument)"
    yield "            case $words[1] in"
    for command in others:
        yield f"                {command.name})"
        yield f"                    _arguments {' '.join(_zsh_specs(command))}"
        yield "                    ;;"
    yield "            esac"
    yield "            ;;"
    yield "    esac"
    yield "}"
    yield "if [[ $funcstack[1] == _tickerd ]]; then"
    yield '    _tickerd "$@"'
    yield "else"
    yield "    compdef _tickerd tickerd"
    yield "fi"


def _zsh_specs(command: Command) -> Iterator[str]:
    for each in command.arguments:
        told = each.help.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
        value = each.value.strip("{}").replace(":", "\\:") or "value"
        action = "_files" if each.is_file else f"({' '.join(each.choices)})" if each.choices else " "
        if not each.names:
            yield _single(f"{'*' if each.many else ''}:{value}:{action}")
            continue
        taken = f":{value}:{action}" if each.value else ""
        others = "" if each.many else f"({' '.join(each.names)})" if len(each.names) > 1 else ""
        for name in each.names:
            yield _single(f"{'*' if each.many else others}{name}[{told}]{taken}")


def _fish(commands: Sequence[Command]) -> Iterator[str]:
    _, *others = commands
    names = " ".join(each.name for each in others)
    yield "# Completion of tickerd for fish. Once: tickerd completion fish | source"
    yield "# For good: tickerd completion fish > ~/.config/fish/completions/tickerd.fish"
    yield "complete -c tickerd -f"
    at_first = f"-n 'not __fish_seen_subcommand_from {names}'"
    for command in others:
        yield f"complete -c tickerd {at_first} -a {command.name} -d {_fish_quoted(command.summary)}"
    for command in commands:
        condition = f"-n '__fish_seen_subcommand_from {command.name}'" if command.name else at_first
        for argument in command.arguments:
            yield f"complete -c tickerd {condition} {_fish_words(argument)}"


def _fish_words(argument: Argument) -> str:
    names = [f"-{'s' if len(name) == 2 else 'l'} {name.lstrip('-')}" for name in argument.names]
    value = ["-x"] if argument.value and not argument.is_file and argument.names else []
    value += ["-r", "-F"] if argument.is_file and argument.names else ["-F"] if argument.is_file else []
    choices = [f"-a {_fish_quoted(' '.join(argument.choices))}"] if argument.choices else []
    return " ".join([*names, *value, *choices, f"-d {_fish_quoted(argument.help)}"])


def _fish_quoted(text: str) -> str:
    """The text in single quotes, as fish reads them."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _single(text: str) -> str:
    """The text in single quotes, as bash and zsh read them."""
    return "'" + text.replace("'", "'\\''") + "'"


_SHELLS: Final[dict[str, Callable[[Sequence[Command]], Iterator[str]]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}


def script(shell: str, commands: Sequence[Command]) -> str:
    """The script for one of `daemon.commands.arguments.SHELLS`."""
    return "\n".join(_SHELLS[shell](commands))
