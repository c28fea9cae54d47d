"""Public log formats as they are published, with lines of them damaged: every line is accounted for."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path

from fuzz.containers import mutated, zstd
from fuzz.events import balance
from fuzz.harness import Place, expect

ODD = (
    "",
    "x",
    "-1",
    "nan",
    "1e999",
    "9" * 60,
    "\x00",
    '"',
    "'; drop table events; --",
    "é",
    "null",
    "2",
    "0.5",
    " ",
)
IPINYOU = (
    "b{n}\t20130606000104{n:03d}\t1\tu{n}\tMozilla\t1.2.3.*\t1\t2\t1\td\tu\tnull\ts\t300\t250\t1\t1\t5\tc1\t300\t"
    "{price}\tnull\t2259\t10006,10110"
)


def _movielens(n: int) -> dict[str, str]:
    return {
        "u.user": f"{n}|24|M|writer|85711",
        "u.item": f"{n}|Toy Story ({n})|01-Jan-1995||http://x|" + "|".join("01" * 9 + "0"),
        "u.data": f"{n}\t{n}\t{n % 5 + 1}\t{881250949 + n}",
    }


def _taobao(n: int) -> dict[str, str]:
    return {
        "user_profile.csv": f"{n},0,5,2,5,,3,0,2",
        "ad_feature.csv": f"{n},6406,{n},1,95471,170.0",
        "raw_sample.csv": f"{n},{1494032110 + n},{n},430548_1007,{1 - n % 2},{n % 2}",
    }


TAOBAO = {
    "user_profile.csv": "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,"
    "shopping_level,occupation,new_user_class_level ",
    "ad_feature.csv": "adgroup_id,cate_id,campaign_id,customer,brand,price",
    "raw_sample.csv": "user,time_stamp,adgroup_id,pid,nonclk,clk",
}
AVAZU = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,"
    "device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
)
BANDIT = {
    "item_context.csv": ",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3",
    "all.csv": ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,"
    "user_feature_2,user_feature_3,user-item_affinity_0",
}


def _bandit(n: int) -> dict[str, str]:
    return {
        "item_context.csv": f"{n},{n},-0.5,a,b,c",
        "all.csv": f"{n},2019-11-24 00:00:{n % 60:02d}.004+00:00,{n},{n % 3 + 1},{n % 2},0.0125,a,b,c,d,0.0",
    }


# By source: the folder of its files, their first lines, a line of each by number, and its delimiter.
Maker = Callable[[int], dict[str, str]]
FORMS: dict[str, tuple[str, dict[str, str], Maker, str]] = {
    "movielens": (".", {}, _movielens, "|\t"),
    "taobao-ad": (".", TAOBAO, _taobao, ","),
    "open-bandit": ("random/all", BANDIT, _bandit, ","),
    "sequences": (".", {}, lambda n: {"games.txt": f"{n % 7} {n}"}, " "),
    "avazu": (
        ".",
        {"train.csv": AVAZU},
        lambda n: {"train.csv": f"{10**18 + n},{n % 2},141021{n % 24:02d}," + ",".join(["1005"] * 21)},
        ",",
    ),
    "criteo": (
        ".",
        {},
        lambda n: {"train.txt": "\t".join([str(n % 2), *["5"] * 13, *[f"{n:08x}"] * 26])},
        "\t",
    ),
    "ipinyou": (".", {}, lambda n: {"imp.20130606.txt": IPINYOU.format(n=n, price=n)}, "\t"),
}


def _spoiled(rng: random.Random, line: str, delimiters: str) -> str:
    """A line with a value changed, cut short or grown."""
    mark = next((one for one in delimiters if one in line), ",")
    cells = line.split(mark)
    how = rng.randrange(5)
    if how == 0:
        return mark.join(cells[: rng.randrange(len(cells))])
    if how == 1:
        return mark.join([*cells, "more"])
    if how == 2:
        return rng.choice(("", " ", "\x00", mark, '"', "z" * 100_000))
    cells[rng.randrange(len(cells))] = rng.choice(ODD)
    return mark.join(cells)


def source_case(rng: random.Random, place: Place) -> str:
    """A published set of which some lines are spoiled, packed or plain."""
    place.notes["before"] = place.warehouse()
    name = rng.choice(sorted(FORMS))
    folder, heads, make, delimiters = FORMS[name]
    rows = rng.choice((1, 8, 60))
    lines: dict[str, list[str]] = {}
    for number in range(rows):
        for file, line in make(number + 1).items():
            lines.setdefault(file, [heads[file]] if file in heads else []).append(line)
    spoiled = rng.choice(sorted(lines))
    whole = rng.random() < 0.25
    if not whole:
        for _ in range(rng.choice((1, 3))):
            first = 1 if spoiled in heads and rng.random() < 0.9 else 0
            at = rng.randrange(first, len(lines[spoiled]))
            lines[spoiled][at] = _spoiled(rng, lines[spoiled][at], delimiters)
    for file, content in lines.items():
        data = ("\n".join(content) + rng.choice(("", "\n"))).encode(
            "latin-1" if name == "movielens" else "utf-8"
        )
        if not whole and file == spoiled and rng.random() < 0.15:
            data = rng.choice((mutated(rng, data, 5), b"", data[: len(data) // 2], b"\xff\xfe" + data))
        packing = rng.choice(("", "", ".gz", ".zst")) if name not in ("movielens",) else ""
        packed = {"": data, ".gz": gzip.compress(data), ".zst": zstd(data)}[packing]
        place.write(f"set/{folder}/{file}{packing}", packed)
    given: Path = place.files / "set"
    said = place.run("ingest", given, "--source", name)
    if said.code:
        expect(not whole, f"{name} as published is refused: {said.err[:400]}")
        expect(any(file.split(".")[0] in said.err for file in lines) or "set" in said.err, said.err[:300])
        _rejects_counted(place)
        return f"{name} refused"
    balance(said)
    counts = said.json["tables"]
    if whole:
        expect(not sum(one["rejected"] for one in counts.values()), f"{name} as published: {counts}")
    listed = place.rows("select count(*) from rejects")[0][0]
    refused = sum(one["rejected"] for one in counts.values())
    # A line may become rows of one table more than once: those share a reject.
    expect(listed <= refused and (listed > 0) == (refused > 0), f"{name}: {listed} rejects of {refused} rows")
    _rejects_counted(place)
    return name


def _rejects_counted(place: Place) -> None:
    """Lines of rejects are lines of their files, and hold what the reject says."""
    for file, line, text in place.rows("select file, line, row from rejects"):
        path = Path(file)
        if path.suffix not in (".gz", ".zst") and b'"' not in path.read_bytes():
            raw = path.read_bytes().split(b"\n")
            expect(line <= len(raw), f"{path.name}:{line} is behind its end")
            found = raw[line - 1].rstrip(b"\r")
            options = {found.decode(code, "backslashreplace")[: len(text)] for code in ("utf-8", "latin-1")}
            expect(text in options, f"{path.name}:{line} is {found[:80]!r}, its reject {text[:80]!r}")
