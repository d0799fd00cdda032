# SPDX-License-Identifier: Apache-2.0
"""Who may include whom in src/: LAYERS is the layering, lowest first.

An include of the project is a path from src/.  A file includes files of its own layer, and of the
layers that LAYERS names for it.  A layer is a folder with what is in it, or a single file; the longest
name that fits counts.
"""
import pathlib
import re

# layer: the layers that it may include
LAYERS = {
    "base": "",
    "port": "base",
    "wire": "base",
    "agent": "base",
    "api/ggml": "base wire",
    "link": "base wire agent",
    "config": "base agent",
    "archive": "base",
    "tree": "base port config",
    "kit": "base port agent config tree api/ggml",
    "disk": "base port config tree kit",
    "virtio": "base",
    "vmm": "base agent virtio",
    "vmm/arch": "base agent virtio vmm",
    "vmm/main.c": "base virtio vmm vmm/arch",
    "guest/init": "base agent",
    "guest/ggml": "base wire api/ggml link",
    "broker": "base port wire config",
    "machine": "base port wire agent config tree kit disk broker",
    "exec": "base port wire",
    "exec/ggml": "base wire api/ggml exec",
    "exec/apis.c": "exec exec/ggml",
    "exec/main.c": "base port wire exec",
    "bench": "base",
    "cli": "base port wire agent config tree kit disk broker machine bench",
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def layer_of(path):
    """Of a path from src/; None: it is in no layer."""
    return max((l for l in LAYERS if path == l or path.startswith(l + "/")), key=len, default=None)


def wrong_table():
    """A layer may name only those above it in the table: so no two can need each other."""
    names = list(LAYERS)
    return [f"layers.py: '{name}' may not name '{other}'" for i, name in enumerate(names)
            for other in LAYERS[name].split() if other not in names[:i]]


def judge(root, files, made=()):
    """What is wrong with the includes of @files (paths from @root); @made are headers that a build makes."""
    wrong = wrong_table()
    for name in files:
        path = str(pathlib.PurePath(name).relative_to("src"))
        layer = layer_of(path)
        if not layer:
            wrong.append(f"{name}: no layer of tests/lib/layers.py has it")
            continue
        for target in INCLUDE.findall((root / name).read_text()):
            if target not in made and not (root / "src" / target).is_file():
                wrong.append(f'{name}: "{target}" is not a path from src/')
            elif layer_of(target) not in (layer, *LAYERS[layer].split()):
                wrong.append(f'{name}: {layer} may not include "{target}"')
    return wrong
