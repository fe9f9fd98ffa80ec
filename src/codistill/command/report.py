"""`codistill report`: tables of runs, and a page on them."""

from pathlib import Path

from codistill.command.options import (
    Parser,
    add_out,
    add_page_options,
    add_places,
    add_trust,
    measure_options,
)


def main(argv: list[str]) -> int:
    """`codistill report RUN ...`."""
    parser = Parser(
        prog="codistill report",
        description="Prints a table of finished runs and, with --out, writes a page on them. Runs "
        "that differ only in the seed are one row, with mean and standard deviation.",
    )
    parser.add_argument("runs", nargs="+", help="folders of finished runs")
    add_out(
        parser,
        "folder to write report.html to, a page that needs no other file, with report.md, "
        "table.md, compared.md, runs.csv and curves.png (default: print the table only)",
    )
    add_page_options(parser)
    add_places(parser)
    add_trust(parser)
    options = parser.parse_args(argv)
    how = measure_options(options)

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
