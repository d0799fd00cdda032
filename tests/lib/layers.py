# SPDX-License-Identifier: Apache-2.0
"""Who may include whom in src/: LAYERS is the layering, lowest first.

An include of the project is a path from src/.  A file includes files of its own layer, and of the
layers that LAYERS names for it.  A layer is a folder with what is in it, or a single file; the longest
name that fits counts.  X/* stands for each folder of X, whose files do not include one another's, and of
another X/* only those of the same name: an API sees nothing of another one.
"""
import pathlib
import re

# layer: the layers that it may include
LAYERS = {
    "base": "",
    "port": "base",
    "wire": "base",
    "agent": "base",
    "api/*": "base wire",
    "link": "base wire agent",
    "config": "base agent",
    "archive": "base",
    "tree": "base port config",
    "kit": "base port agent config tree api/*",
    "disk": "base port config tree kit",
    "virtio": "base",
    "vmm": "base agent virtio",
    "vmm/arch": "base agent virtio vmm",
    "vmm/main.c": "base virtio vmm vmm/arch",
    "guest/init": "base agent",
    "guest/*": "base wire api/* link",
    "broker": "base port wire config",
    "machine": "base port wire agent config tree kit disk broker",
    "exec": "base port wire",
    "exec/*": "base wire api/* exec",
    "exec/apis.c": "exec exec/*",
    "exec/main.c": "base port wire exec",
    "bench": "base",
    "cli": "base port wire agent config tree kit disk broker machine bench",
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def layer_of(path):
    """(its name in LAYERS, what * stands for) of a path from src/; (None, None): it is in no layer."""
    exact = [l for l in LAYERS if path == l or path.startswith(l + "/")]
    best, star = max(exact, key=len, default=None), None
    folder, _, rest = path.partition("/")
    name, slash, _ = rest.partition("/")
    if slash and f"{folder}/*" in LAYERS and f"{folder}/{name}" not in exact:
        best, star = f"{folder}/*", name
    return best, star


def may_include(path, target):
    (layer, star), (other, its_star) = layer_of(path), layer_of(target)
    if layer == other:
        return star == its_star
    return other in LAYERS[layer].split() and (not star or not its_star or star == its_star)


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
        if not layer_of(path)[0]:
            wrong.append(f"{name}: no layer of tests/lib/layers.py has it")
            continue
        for target in INCLUDE.findall((root / name).read_text()):
            if target not in made and not (root / "src" / target).is_file():
                wrong.append(f'{name}: "{target}" is not a path from src/')
            elif not may_include(path, target):
                wrong.append(f'{name}: {layer_of(path)[0]} may not include "{target}"')
    return wrong
