"""`codistill list`: what there is by name."""

import textwrap

from codistill.command.options import Parser, refuse_unknown
from codistill.names import DATASETS, FAMILIES, METHODS, NETWORKS
from codistill.settings.recipes import recipes


def main(argv: list[str]) -> int:
    """`codistill list KIND`."""
    kinds = {
        "methods": (_list_methods, "methods, with what each needs and costs"),
        "networks": (_list_networks, "networks, and how to name one of another library"),
        "data": (_list_data, "data sets"),
        "recipes": (_list_recipes, "recipes for codistill train --config"),
        "tables": (_list_tables, "tables of papers for codistill reproduce"),
    }
    parser = Parser(
        prog="codistill list", description="Lists the names that the other commands take."
    )
    commands = parser.add_subparsers(dest="kind", metavar="KIND", title="kinds")
    for kind, (_, about) in kinds.items():
        commands.add_parser(kind, help=about, description=f"Lists {about}.")
    refuse_unknown("kind", argv, kinds)
    options = parser.parse_args(argv)
    if options.kind is None:
        parser.print_help()
    else:
        kinds[options.kind][0]()
    return 0


def _list_methods() -> None:
    """Prints each method as soon as it is known: they are tried, which takes some seconds."""
    from codistill.analysis.cost.overview import ABOUT, describe, overview

    indent = " " * (max(map(len, METHODS)) + 2)
    for name in METHODS:
        lines = [
            part
            for line in describe(overview(name))
            for part in textwrap.wrap(line, 99 - len(indent), subsequent_indent="  ")
        ]
        lines[0] = f"{name:<{len(indent)}}{lines[0]}"
        print(f"\n{indent}".join(lines), flush=True)
    print("", *textwrap.wrap(ABOUT, 99), sep="\n")


def _list_networks() -> None:
    _print_aligned(
        {name: f"{FAMILIES[family]}, for 32x32 images" for name, (family, _) in NETWORKS.items()}
        | {
            "timm/NAME": "any classifier of timm; timm.list_models() lists them",
            "torchvision/NAME": "any classifier of torchvision",
            "package.module:callable": "your own: a codistill.Network, or any torch.nn.Module",
        }
    )


def _list_data() -> None:
    texts = {}
    for name, known in DATASETS.items():
        facts = [f"{known.num_classes} classes"] if known.num_classes else []
        facts += ["{}x{}".format(*known.image_size)] if known.image_size else []
        texts[name] = "; ".join(filter(None, [known.about, ", ".join(facts)]))
    _print_aligned(texts)


def _list_recipes() -> None:
    _print_aligned(
        {n: path.read_text().splitlines()[0].removeprefix("# ") for n, path in recipes().items()}
    )


def _list_tables() -> None:
    from codistill.command.reproduce import list_tables

    list_tables()


def _print_aligned(texts: dict[str, str]) -> None:
    width = max(map(len, texts))
    for name, text in texts.items():
        print(f"{name:<{width}}  {text}")
