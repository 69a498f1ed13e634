"""Numbers as people say them."""


def count_of(number: int, what: str) -> str:
    """``1 shard``, ``2 shards``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def size_text(number: float) -> str:
    """Bytes in a decimal unit: the largest of which there is one at least, up to TB."""
    if round(number) < 1000:
        return count_of(round(number), "byte")
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if round(number, 2) < 1000:
            return f"{number:.2f} {unit}"
    return f"{number / 1000:.2f} TB"
