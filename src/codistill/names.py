"""What is built in, by name, without importing PyTorch: the command's help reads this.

A new method needs its file and its line here; one kept elsewhere needs no line: it is given as
`package.module:Class`.
"""

METHODS: dict[str, str] = {
    "independent": "codistill.methods.independent:Independent",
    "dml": "codistill.methods.dml:DML",
    "ffl": "codistill.methods.ffl:FFL",
}

NETWORKS: dict[str, tuple[str, tuple[int, ...]]] = {
    **{f"resnet{depth}": ("resnet", (depth,)) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{
        f"wrn_{depth}_{width}": ("wide_resnet", (depth, width))
        for depth, width in ((16, 2), (28, 2), (40, 2), (28, 10))
    },
}
"""Name -> the family and its arguments, such as ("resnet", (32,))."""
