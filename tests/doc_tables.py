"""The tables of the pages in docs/, as the tests read them."""


def rows_under(page, heading):
    """Header and rows of the first table below a bold heading."""
    lines = page.split(f"**{heading}**")[1].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    end = next((n for n, line in enumerate(lines) if n > first and not line.startswith("|")), len(lines))
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first:end]]
    return table[0], table[2:]
