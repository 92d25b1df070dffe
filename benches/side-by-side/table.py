"""Medians, ratios, and how they are printed."""

from statistics import median

from measure import Figure

MIB = 2**20


def summary(figures: list[Figure]) -> list[dict]:
    """A row for each contender under each load; ratios are taken round by round."""
    cases: dict[tuple, dict[tuple[str, str], list[Figure]]] = {}
    for figure in figures:
        case = (figure.memory, figure.load, figure.record_bytes, figure.durability)
        cases.setdefault(case, {}).setdefault((figure.system, figure.mode), []).append(figure)
    rows = []
    for (memory, load, record_bytes, durability), contenders in cases.items():
        own = {mode: rounds for (system, mode), rounds in contenders.items() if system == "sagwan"}
        for (system, mode), rounds in sorted(contenders.items()):
            row = {"memory": memory, "load": load, "record_bytes": record_bytes, "durability": durability}
            row |= {"system": system, "mode": mode, "rounds": len(rounds)}
            for name in ("records", "records_per_s", "bytes_per_s", "server_cpu_s_per_gb"):
                values = [getattr(figure, name) for figure in rounds]
                row[name] = spread([value for value in values if value is not None])
            for name in ("server_peak_resident_bytes", "server_peak_anonymous_bytes"):
                row[name] = max(getattr(figure, name) for figure in rounds)
            if system != "sagwan":
                row["sagwan_to_it"] = {mode: ratios(ours, rounds) for mode, ours in own.items()}
            rows.append(row)
    return rows


def spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"median": median(values), "least": min(values), "most": max(values)}


def ratios(ours: list[Figure], theirs: list[Figure]) -> dict[str, float] | None:
    """Of throughput, between figures of the same round."""
    by_round = {figure.round: figure.records_per_s for figure in theirs}
    return spread([figure.records_per_s / by_round[figure.round] for figure in ours if figure.round in by_round])


def render(rows: list[dict]) -> str:
    own = sorted({row["mode"] for row in rows if row["system"] == "sagwan"}, reverse=True)
    heads = ["", "RECORDS/S", "MB/S", "(LEAST-MOST)", "CPU S/GB", "PEAK MIB", "NOT FILES", "RECORDS"]
    heads += [f"SAGWAN {mode.upper()}/IT" for mode in own]
    lines, case = [heads], None
    for row in rows:
        if case != (case := (row["memory"], row["load"], row["record_bytes"], row["durability"])):
            lines += [[], [title(row)]]
        lines.append(cells(row, own))
    return columns(lines)


def title(row: dict) -> str:
    what = f"{row['load']}, {row['record_bytes']} B"
    if row["load"] == "produce":
        what += ", acknowledged " + {"fsync": "when synced (fsync)", "os": "from the page cache (os)"}[row["durability"]]
    return f"{what}; memory {row['memory']}"


def cells(row: dict, own: list[str]) -> list[str]:
    rate = {name: value / 1e6 for name, value in row["bytes_per_s"].items()}
    cpu = row["server_cpu_s_per_gb"]
    line = [
        f"  {row['system']} {row['mode']}",
        f"{row['records_per_s']['median']:,.0f}",
        f"{rate['median']:.1f}",
        f"({rate['least']:.1f}-{rate['most']:.1f})",
        f"{cpu['median']:.2f}" if cpu else "-",
        f"{row['server_peak_resident_bytes'] / MIB:.0f}",
        f"{row['server_peak_anonymous_bytes'] / MIB:.0f}",
        f"{row['records']['median']:,.0f}",
    ]
    for mode in own:
        ratio = row.get("sagwan_to_it", {}).get(mode)
        line.append(f"{ratio['median']:.2f} ({ratio['least']:.2f}-{ratio['most']:.2f})" if ratio else "")
    return line


def columns(lines: list[list[str]]) -> str:
    """The first to the left, the others to the right; a line of one cell is a title and widens nothing."""
    table = [line for line in lines if len(line) > 1]
    widths = [max(len(line[index]) for line in table) for index in range(len(table[0]))]
    text = []
    for line in lines:
        if len(line) > 1:
            cells_of = enumerate(zip(line, widths))
            line = ["  ".join(cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in cells_of)]
        text.append("".join(line).rstrip())
    return "\n".join(text)
