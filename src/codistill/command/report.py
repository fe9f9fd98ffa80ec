"""`codistill report`: tables of runs, and a page on them."""

from pathlib import Path

from codistill.command.options import Parser, add_page_options, add_places, how_to_measure


def main(argv: list[str]) -> int:
    """`codistill report RUN ... [--out DIR] [--no-analysis] [--images 3,17]`."""
    parser = Parser(
        prog="codistill report",
        description="Tables and a page on runs; runs that differ in the seed stand together.",
    )
    parser.add_argument("runs", nargs="+", help="folders of finished runs")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="also write report.html, a page that needs no other file; report.md; table.md, "
        "compared.md, runs.csv, curves.png",
    )
    add_page_options(parser)
    add_places(parser)
    options = parser.parse_args(argv)
    how = how_to_measure(options)

    from codistill.reporting.page.measure import refuse_places
    from codistill.reporting.page.write import require_page, write_page
    from codistill.reporting.tables import print_table, write_report
    from codistill.runs.finished import load_results

    results = load_results([Path(run) for run in options.runs])
    if options.out and how:
        refuse_places(results, how)
    print_table(results)
    if options.out:
        require_page()
        for file in write_report(results, Path(options.out)):
            print(file)
        for file in write_page(results, Path(options.out), how):
            print(file)
    return 0
