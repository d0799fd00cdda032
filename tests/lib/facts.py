# SPDX-License-Identifier: Apache-2.0
"""Facts that stand in one place of src/, and are not to be written out anywhere else.

A fact is a pattern of text outside comments, and the files that may hold it.
"""
import re

FACTS = {
    # what programs in a machine find, and where
    r'"/?(usr/lib/pillion|usr/lib/wsl|mnt/host)\b': ("src/agent/exposed.h",),
    r'"/run/pillion/': ("src/agent/exposed.h", "src/guest/ggml/plugin.c", "src/link/target.c"),
    r'"libggml-pillion': ("src/agent/exposed.def",),
    r'"GGML_BACKEND_PATH': ("src/agent/exposed.def",
                            # programs of the host, which are to have no plugin of ours
                            "src/bench/bench.c", "src/exec/ggml/ggml_host.c"),
    # options of pillion-init
    r'"--(entered|go|life|ready|listen)-fd"': ("src/agent/init_options.c", "src/broker/gate.c", "src/machine/gate.c"),
    # words of settings that travel
    r'"dropCache"': ("src/agent/init_options.c",),
}
COMMENT = re.compile(r"/\*.*?\*/", re.S)


def judge(root, files):
    """Where in @files (paths from @root) a fact is written out that belongs elsewhere."""
    wrong = []
    for name in map(str, files):
        text = COMMENT.sub("", (root / name).read_text())
        wrong += [f"{name}: {found.group()}: it belongs in {homes[0]}" for pattern, homes in FACTS.items()
                  if name not in homes for found in re.finditer(pattern, text)]
    wrong += [f"facts.py: {home} is not there" for homes in FACTS.values() for home in homes[:1]
              if not (root / home).is_file()]
    return wrong
