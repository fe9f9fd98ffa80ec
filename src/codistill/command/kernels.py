"""`codistill kernels`: compiles kernels for training on a CPU."""

from codistill.command.options import Parser


def main(argv: list[str]) -> int:
    """`codistill kernels [--again]`."""
    parser = Parser(
        prog="codistill kernels",
        description="Compiles kernels that make training on a CPU faster, for this machine and its "
        "PyTorch; needs a C++ compiler. Trainings use them from then on, unless --kernels false.",
    )
    parser.add_argument("--again", action="store_true", help="also where they are there")
    options = parser.parse_args(argv)

    from codistill.kernels.build import build, built

    there = built() is not None and not options.again
    if not there:
        print("compiling the kernels, which takes about ten seconds", flush=True)
    file = build(options.again)
    print(f"the kernels are {'there already' if there else 'built'}: {file}")
    return 0
