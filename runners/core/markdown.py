"""Tables in Markdown."""


def to_table(headers: list[str], rows: list[list[str]], left: int = 1, last: int = 0) -> list[str]:
    """A Markdown table: the first `left` and the `last` columns are text, the others numbers."""
    numbers = range(left, len(headers) - last)
    rule = ["---:" if i in numbers else "---" for i in range(len(headers))]
    body = [[escape(cell) for cell in row] for row in [headers, *rows]]
    return [f"| {' | '.join(row)} |" for row in [body[0], rule, *body[1:]]]


def escape(text: str) -> str:
    """Text that does not end the cell it stands in."""
    return text.replace("|", "\\|")
