#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes completion and the manual page's lists from options.def.

    make_texts.py bash|zsh|fish|man options.def TEMPLATE >OUT

A template has lines of the form `@NAME@` or `@NAME COMMAND@`, which are replaced:

    @tables@           bash, zsh: functions that look up what options.def says
    @complete@         fish: a `complete` line for each command, option and operand
    @usage COMMAND@    man: the command, its operands and options in one line
    @options COMMAND@  man: a list of the options and what they do
    @ignored COMMAND@  man: wsl's options without a meaning, in a row
"""
import pathlib
import re
import sys

WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|\'(.)\'|([\w]+)')
OFFERED = ("PLAIN", "REQUIRED", "ONE_OF")


class Option:
    def __init__(self, name, letter, argument, completion, kind, text):
        self.name, self.argument, self.kind, self.help = "--" + name, argument, kind, text
        self.letter = None if letter == "0" else "-" + letter
        self.completion = completion.lower()
        self.words = [self.name] + [self.letter] * bool(self.letter)
        self.takes_value = bool(argument) and argument[0] != "["


class Command:
    def __init__(self, name, alias, operands, first, second, text):
        self.name, self.operands, self.help = name, operands, text
        self.words = [name] + [alias] * bool(alias)
        self.key = name or "run"  # how the shells' tables call it
        self.completions = [first.lower(), second.lower()]
        self.all = []

    def options(self, *kinds):
        return [o for o in self.all if o.kind in (kinds or OFFERED)]


def fields(text):
    for string, char, word in WORD.findall(text):
        yield None if word == "NULL" else char or word or string


def read(path):
    """{ID: Command}, in the order of the file."""
    text = re.sub(r"/\*.*?\*/", "", pathlib.Path(path).read_text(), flags=re.S)
    entries = re.findall(r"^(CMD|OPT)\(((?:[^()\"']|\"(?:[^\"\\]|\\.)*\"|'.')*)\)\n", text, re.M)
    if len(entries) != len(re.findall(r"^\w", text, re.M)):
        sys.exit(f"{path}: an entry that cannot be read")
    commands = {}
    for kind, body in entries:
        first, second, *rest = fields(body)
        if kind == "CMD":
            commands[first] = Command(*rest)
        else:
            commands[first].all.append(Option(*rest))
    return commands


# ---- bash, zsh ----

def quote(text):
    return "'" + text.replace("'", "'\\''") + "'"


def cases(name, comment, rows):
    """A shell function that prints what stands behind its first argument."""
    yield f"{name}() # {comment}"
    yield "{"
    yield "\tcase $1 in"
    for keys, value in rows:
        yield f"\t{' | '.join(quote(k) for k in keys)}) printf '%s\\n' {value} ;;"
    yield "\tesac"
    yield "}"
    yield ""


def tables(commands, describe):
    """`describe`: how an option or a command is written, given its name and help."""
    named = [c for c in commands.values() if c.name]
    yield from cases("_pillion_commands", "nothing: all commands",
                     [([""], " ".join(describe(c.name, c.help) for c in named))])
    yield from cases("_pillion_key", "WORD: the command that it names",
                     [(c.words, quote(c.name)) for c in named])
    yield from cases("_pillion_options", "COMMAND: its options",
                     [([c.key], " ".join(describe(o.name, o.help) for o in c.options()))
                      for c in commands.values() if c.options()])
    yield from cases("_pillion_value", "'COMMAND OPTION': what its argument is; nothing: it has none",
                     [([f"{c.key} {w}" for w in o.words], o.completion)
                      for c in commands.values() for o in c.all if o.takes_value])
    yield from cases("_pillion_operand", "'COMMAND NUMBER': what that operand is",
                     [([f"{c.key} {i}"], kind) for c in commands.values()
                      for i, kind in enumerate(c.completions) if kind != "none"])


def bash(commands, what, _):
    assert what == "tables"
    return tables(commands, lambda name, _: quote(name))


def zsh(commands, what, _):
    assert what == "tables"
    return tables(commands, lambda name, text: quote(f"{name}:{text}"))


# ---- fish ----

FISH_VALUES = {"none": "", "distro": "(__pillion_distros)", "flavor": "(__pillion_flavors)", "form": "1 2",
               "shell": "standard login none", "model": "(__pillion_files .gguf)",
               "picture": "(__pillion_files .png)", "archive": "(__pillion_files '')",
               "folder": "(__fish_complete_directories)", "format": "tar tar.gz tar.xz tar.zst vhd",
               "bool": "true false"}


def fish_option(words, text, more=()):
    out = []
    for word in words:
        if word.startswith("--"):
            out += ["-l", word[2:]]
        elif word.startswith("-"):
            out += ["-s", word[1:]]
        else:
            out += ["-a", word]
    return " ".join([*out, *more, "-d", quote(text)])


def fish(commands, what, _):
    assert what == "complete"
    for c in commands.values():
        valued = " ".join(w for o in c.all if o.takes_value for w in o.words if o.name != "--exec")
        at = f"-n '__pillion_at {' '.join(c.words)}'" if c.name else f"-n '__pillion_at_run {valued}'"
        if c.name:
            yield f"complete -c pillion -n __pillion_at_first {fish_option(c.words, c.help)}"
        for o in c.options():
            more = ["-x"] * o.takes_value
            if o.takes_value and FISH_VALUES[o.completion]:
                more += ["-a", quote(FISH_VALUES[o.completion])]
            yield f"complete -c pillion {at} {fish_option(o.words, o.help, more)}"
        for i, kind in enumerate(c.completions):
            if kind != "none":
                yield (f"complete -c pillion {at[:-1]}; and test (__pillion_operands {valued}) -eq {i}' "
                       f"-a {quote(FISH_VALUES[kind])}")


# ---- man ----

def man_argument(text):
    """"<1|2>": the words themselves; "<Name>": a name for them."""
    if not text:
        return ""
    inner = text.strip("<>[]")
    words = inner.split("|")
    marked = "|".join(f"*{w}*" for w in words) if len(words) > 1 else re.sub(
        r"\w+", lambda m: f"_{m[0].lower()}_", inner)
    return f" [{marked}]" if text[0] == "[" else f" {marked}"


def man_names(words):
    return "|".join(f"*{w}*" for w in sorted(words, key=len))


def man(commands, what, command):
    c = commands[command]
    if what == "usage":
        line = man_names(c.words).replace("|", ", ") + "".join(man_argument(w) for w in c.operands.split())
        for i, o in enumerate(c.options()):
            text = man_names(o.words) + man_argument(o.argument)
            one_of = o.kind == "ONE_OF"
            line += " | " * (one_of and i > 0 and c.options()[i - 1].kind == "ONE_OF") or " "
            line += text if o.kind != "PLAIN" else f"[{text}]"
        yield line
    elif what == "options":
        for i, o in enumerate(c.options()):
            if i:
                yield ""
            yield man_names(o.words).replace("|", ", ") + man_argument(o.argument)
            yield "\t" + o.help.replace("~", "\\~")
    else:
        yield ", ".join(f"*{o.name}*" for o in c.options(what.upper()))


def main():
    kind, table, template = sys.argv[1:]
    commands = read(table)
    make = {"bash": bash, "zsh": zsh, "fish": fish, "man": man}[kind]
    for line in pathlib.Path(template).read_text().splitlines():
        if line.startswith("@") and line.endswith("@"):
            for made in make(commands, *(line[1:-1].split() + [None])[:2]):
                print(made)
        else:
            print(re.sub(r"@(\w+) (\w+)@", lambda m: "\n".join(make(commands, m[1], m[2])), line))


if __name__ == "__main__":
    main()
