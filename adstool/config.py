"""Settings of a workspace: defaults < adstool.toml < ADSTOOL_* environment < command-line flags."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from adstool.config_services import EnrichmentSettings, LlmSettings, ServeSettings, refuse_secret
from adstool.config_values import convert
from adstool.documents import read_toml
from adstool.errors import AdstoolError, choose, quoted

AMOUNT_LOSSES = {"binary": ("",), "count": ("", "poisson"), "duration": ("", "lognormal", "weighted")}


@dataclass(frozen=True)
class Action:
    """One engagement type: every action is a label, and the rankers have a head for it."""

    name: str
    kind: str = "binary"  # binary | duration | count
    loss: str = ""  # of the amount: lognormal (the default) | weighted for durations; counts are poisson
    weight: float = 1.0  # in the utility, of one, or of a typical amount; negative for unwanted actions
    positive: bool = True  # counts as engagement in histories and interests
    window_hours: float = 24.0  # the action belongs to an impression at most this much earlier

    @property
    def amount_loss(self) -> str:
        """The loss of the head of its amount, empty for a binary action."""
        return {"binary": "", "count": "poisson", "duration": self.loss or "lognormal"}[self.kind]


@dataclass(frozen=True)
class Format:
    """One ad format: its slots, the chance that each is seen, and how users take it."""

    name: str = "standard"
    slots: int = 3
    exposure: tuple[float, ...] = (1.0, 0.8, 0.6)
    size: float = 1.0  # room of a slot, in slots of the first format
    rule: str = ""  # of its prices: first_price | gsp | vcg; empty: auction.rule
    actions: tuple[str, ...] = ()  # heads that apply to it; empty: all
    ads: tuple[str, ...] = ()  # catalogue formats of the ads that may stand in it; empty: all
    lift: float = 1.0  # odds of wanted actions against a slot of the first format that is seen: an assumption
    hide_lift: float = 1.0  # the same of unwanted actions


@dataclass(frozen=True)
class WarehouseSettings:
    """How DuckDB is used."""

    memory_limit: str = "auto"  # a quarter of what the process may have, at most 1GB or 250MB a core
    threads: int = 0  # 0: all cores, fewer where memory is short
    lock_wait_seconds: float = 30.0  # how long a second writer waits


@dataclass(frozen=True)
class ContentSettings:
    """Which CLIP embeds items, and how."""

    model: str = "adstool-small"  # any open_clip name, or the small CLIP that ships with adstool
    pretrained: str = ""  # open_clip tag or a checkpoint file; empty: the shipped weights
    precision: str = "auto"  # auto | fp32 | bf16
    batch_size: int = 64
    words: float = 0.3  # what an item that holds all words of a search gains on its cosine


@dataclass(frozen=True)
class SemanticIdsSettings:
    """How content vectors become semantic ids, and whether rankers read them."""

    method: str = "kmeans"  # kmeans | rqvae
    levels: int = 3
    size: int = 0  # codes a level, up to 256; 0: by the size of the catalogue, coarser first
    seed: int = 0
    features: int = 1  # prefixes that rankers read as columns of the item, from the first; 0: none


@dataclass(frozen=True)
class FeatureSettings:
    """How examples and features are made from the log."""

    item_type: str = "auto"  # auto | ad | pin: what is ranked; auto takes ads if any was shown
    half_life_days: tuple[float, ...] = (1.0, 14.0)  # decay of the counters
    content: bool = True  # vectors of pictures and texts as features and as a candidate source
    knowledge: bool = False  # vectors of what `enrich` found out, beside them
    history_length: int = 50  # last engagements kept a user
    min_count: int = 5  # ids seen less often in training share the unknown buckets
    unknown_buckets: int = 16
    valid_fraction: float = 0.1  # of the examples, by time
    test_fraction: float = 0.2  # the last of the examples, by time


@dataclass(frozen=True)
class InterestSettings:
    """How interests of users are inferred from what they did. Weights are relative to a click of weight 1."""

    offsite: bool = True  # false: conversions are left out everywhere in interests
    profile: bool = True  # start from what users of the same gender, age and country want
    taxonomy: str = ""  # toml, json or csv of topics; empty: topics made from the catalogue's categories
    half_life_days: float = 14.0  # an action this old counts half
    power: float = 0.25  # an action counts |weight of [[actions]]| to this power
    impression: float = 1.0  # all impressions together, against all wanted actions together
    query: float = 0.25
    online: float = 0.5  # a conversion the tag saw
    offline: float = 0.5  # a conversion in a store
    prior: float = 30.0  # how much evidence the population's habits are worth against the user's own
    temperature: float = 0.02  # of the softmax over cosines that makes intents


@dataclass(frozen=True)
class ConversionSettings:
    """Which conversions count, and which clicks and views of ads they are credited to."""

    kinds: tuple[str, ...] = ()  # tasks of the conversion model; empty: every kind of the log, by frequency
    # A week after a click and a day after a view: what the large platforms bid by. A longer window credits
    # more slow conversions, but as much of the end of the log says nothing final.
    click_window_hours: float = 168.0
    view_window_hours: float = 24.0  # 0: no credit to views
    report_window_hours: float = 24.0  # reports are waited for so much longer than a click window
    attribution: str = "last_touch"  # last_touch | position (40 %, 20 %, 40 %) | linear
    offline: bool = True  # false: conversions of channel offline are left out
    default_value: float = 0.0  # money of a conversion whose log names none
    max_value: float = 0.0  # money of one conversion counts up to this; 0: all of it


@dataclass(frozen=True)
class TrainingSettings:
    """Defaults of every `train` verb; --set key=value changes one."""

    epochs: int = 10
    batch_size: int = 2048
    learning_rate: float = 1e-3
    seed: int = 0
    patience: int = 2  # epochs without a better validation loss before stopping


@dataclass(frozen=True)
class FunnelSettings:
    """How many candidates each stage keeps."""

    retrieve: int = 2000  # candidates of all sources together
    sources: tuple[str, ...] = ()  # of other packages: entry points of the group adstool.sources, by name
    quotas: tuple[str, ...] = ()  # by hand, such as "clip=200"; empty: those learned by `quota`, else equal
    lightweight: int = 200  # kept by the lightweight ranker
    slate: int = 10  # shown
    budget_ms: float = 0.0  # a request that would take longer leaves out sources and candidates; 0: none does
    threads: int = 1  # of ranking: of every model, and of products in numpy; 0: all cores


@dataclass(frozen=True)
class IndexSettings:
    """How items' vectors are kept, and what `index --tune` asks of a search."""

    min_recall: float = 0.95  # of the 100 nearest, by an exact search
    vectors: str = "float32"  # float32 | int8: a quarter of the memory, a little slower to search


@dataclass(frozen=True)
class AuctionSettings:
    """The rule that prices a slate."""

    rule: str = "gsp"  # first_price | gsp | vcg
    reserve: float = 0.01
    utility_weight: float = 0.1  # money a unit of user utility is worth in the ranking
    most_ads: int = 0  # of a request; 0: as many as it asks for
    first: int = 0  # the place of the first ad among what else is shown, from 0
    spacing: int = 1  # an ad every so many places
    per_advertiser: int = 0  # ads of one advertiser in a slate; 0: any number
    per_category: int = 0


@dataclass(frozen=True)
class QuantizationSettings:
    """The limits a quantized model must stay within, against full precision."""

    max_ne_loss: float = 0.0005  # relative rise of normalized entropy of any head
    max_calibration_shift: float = 0.01  # of the sum of any head's predictions
    min_topk_overlap: float = 0.95  # of the better half of each request
    max_size_ratio: float = 0.8
    max_p50_ratio: float = 1.5  # of the median latency
    max_p99_ratio: float = 3.0


@dataclass(frozen=True)
class EvaluationSettings:
    """How offline evaluation is run."""

    bootstrap: int = 200  # resamples of users behind every interval
    requests: int = 200  # logged requests replayed through the funnel
    min_ess: float = 20.0  # effective rows below which off-policy evaluation refuses to answer
    truth: str = ""  # folder of a synthetic world's truth; empty: beside the ingested files


_DEFAULT_ACTIONS = (
    Action("click", weight=1.0),
    Action("long_click", weight=2.0),
    Action("save", weight=4.0),
    Action("hide", weight=-10.0, positive=False),
)


@dataclass(frozen=True)
class Settings:
    """All settings; `origins` tells where each `section.key` that is not a default came from."""

    actions: tuple[Action, ...] = _DEFAULT_ACTIONS
    formats: tuple[Format, ...] = (Format(),)
    warehouse: WarehouseSettings = field(default_factory=WarehouseSettings)
    content: ContentSettings = field(default_factory=ContentSettings)
    semantic_ids: SemanticIdsSettings = field(default_factory=SemanticIdsSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    interests: InterestSettings = field(default_factory=InterestSettings)
    conversion: ConversionSettings = field(default_factory=ConversionSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    funnel: FunnelSettings = field(default_factory=FunnelSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    auction: AuctionSettings = field(default_factory=AuctionSettings)
    quantization: QuantizationSettings = field(default_factory=QuantizationSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    llm: LlmSettings = field(default_factory=LlmSettings)
    enrichment: EnrichmentSettings = field(default_factory=EnrichmentSettings)
    serve: ServeSettings = field(default_factory=ServeSettings)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    def waiting_for_nobody(self, threads: int | None = None) -> Settings:
        """The same, but a warehouse that another process holds is refused at once; threads: of DuckDB."""
        threads = self.warehouse.threads if threads is None else threads
        warehouse = dataclasses.replace(self.warehouse, lock_wait_seconds=0.0, threads=threads)
        return dataclasses.replace(self, warehouse=warehouse)

    def fingerprint(self, *sections: str) -> str:
        """A short hash of the named sections, to tell whether results made with them still stand."""
        import hashlib
        import json

        payload = {name: _plain(getattr(self, name)) for name in sections}
        return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value


SECTIONS: tuple[str, ...] = tuple(
    f.name for f in fields(Settings) if f.name not in ("actions", "formats", "origins")
)
ENVIRONMENT_ONLY = {"ADSTOOL_WORKSPACE", "ADSTOOL_CONFIG"}  # read by the command line itself
MOST_THREADS = 1024


def load_settings(
    path: Path | None,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from the file at `path` (if it exists), the environment and `flags` ("section.key": value).

    Raises AdstoolError for a file that does not parse, an unknown key (naming the nearest known one)
    or a value of the wrong type.
    """
    environment = os.environ if environment is None else environment
    document = read_toml(path) if path is not None and path.is_file() else {}
    where = str(path)
    origins: dict[str, str] = {}
    values: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    arrays: dict[str, Any] = {}
    for name, content in document.items():
        if name in ("actions", "formats"):
            arrays[name] = _array(name, content, where)
            origins[name] = where
        elif name in SECTIONS and isinstance(content, dict):
            for key, value in content.items():
                _set(values, origins, f"{name}.{key}", value, where)
        elif name in SECTIONS:
            raise AdstoolError(
                f"{where}: '{name}' must be a section.", f"Write [{name}] on a line of its own."
            )
        else:
            raise _unknown(name, [*SECTIONS, "actions", "formats"], where)
    for variable, text in environment.items():
        if variable.startswith("ADSTOOL_") and variable not in ENVIRONMENT_ONLY:
            dotted = _dotted(variable.removeprefix("ADSTOOL_").lower())
            _set(values, origins, dotted, text, f"environment {variable}")
    for dotted, value in (flags or {}).items():
        _set(values, origins, dotted, value, "command line")
    types = get_type_hints(Settings)
    built = {name: types[name](**values[name]) for name in SECTIONS}
    return Settings(**arrays, **built, origins=origins)


def _dotted(name: str) -> str:
    """`section.key` of a variable's name; some sections have an underscore of their own."""
    sections = [one for one in SECTIONS if name.startswith(f"{one}_")]
    section = max(sections, key=len) if sections else name.partition("_")[0]
    return f"{section}.{name[len(section) + 1 :]}"


def _unknown(key: str, known: list[str], where: str) -> AdstoolError:
    return AdstoolError(f"{where}: unknown setting {quoted(key)}.", choose(key, sorted(known)))


def _set(
    values: dict[str, dict[str, Any]], origins: dict[str, str], dotted: str, value: Any, where: str
) -> None:
    section, _, key = dotted.partition(".")
    if section not in SECTIONS:
        raise _unknown(section, list(SECTIONS), where)
    hints = get_type_hints(get_type_hints(Settings)[section])
    if key not in hints:
        known = [f"{section}.{name}" for name in hints]
        raise _unknown(dotted, known, where)
    refuse_secret(dotted, value, where)
    values[section][key] = converted = convert(dotted, value, hints[key], where)
    if key == "threads" and not 0 <= converted <= MOST_THREADS:  # of too many, libraries end the process
        raise AdstoolError(
            f"{where}: {dotted} = {quoted(converted)} is no number from 0 to {MOST_THREADS}.",
            "0 takes all cores.",
        )
    origins[dotted] = where


def _array(name: str, content: Any, where: str) -> tuple[Any, ...]:
    kind = Action if name == "actions" else Format
    hints = get_type_hints(kind)
    rows = []
    if not isinstance(content, list):
        raise AdstoolError(f"{where}: '{name}' must be a list.", f"Write [[{name}]] before each entry.")
    for entry in content:
        if not isinstance(entry, dict):
            raise AdstoolError(f"{where}: {quoted(entry)} is no entry of [[{name}]].", 'Write name = "...".')
        for key in entry:
            if key not in hints:
                raise _unknown(key, list(hints), f"{where} [[{name}]]")
        if "name" not in entry:
            raise AdstoolError(f"{where}: an entry of [[{name}]] has no name.", 'Add name = "...".')
        rows.append(kind(**{k: convert(f"{name}.{k}", v, hints[k], where) for k, v in entry.items()}))
    names = [row.name for row in rows]
    if len(set(names)) != len(names):
        raise AdstoolError(
            f"{where}: two entries of [[{name}]] have the same name.",
            f"Give each entry of [[{name}]] a name of its own.",
        )
    for row in rows:
        if isinstance(row, Action) and row.kind not in ("binary", "duration", "count"):
            raise AdstoolError(
                f"{where}: action '{row.name}' has kind '{row.kind}'.", "Use binary, duration or count."
            )
        if isinstance(row, Action) and row.loss not in AMOUNT_LOSSES[row.kind]:
            known = [loss for loss in AMOUNT_LOSSES[row.kind] if loss]
            raise AdstoolError(
                f"{where}: action '{row.name}' is {row.kind} and has loss '{row.loss}'.",
                f"Use {' or '.join(known)}." if known else "Leave loss out.",
            )
    return tuple(rows)
