"""Taobao's display-ad log as Alimama publishes it: https://tianchi.aliyun.com/dataset/56.

raw_sample.csv gives impressions and clicks, ad_feature.csv ads with their campaigns and advertisers,
user_profile.csv users, and behavior_log.csv (which may be left out) what users did while shopping.
"""

from __future__ import annotations

from pathlib import Path

from adstool.ingestion.sources.base import Feed

PROFILE = (
    "userid",
    "cms_segid",
    "cms_group_id",
    "final_gender_code",
    "age_level",
    "pvalue_level",
    "shopping_level",
    "occupation",
    "new_user_class_level",
)
AD = ("adgroup_id", "cate_id", "campaign_id", "customer", "brand", "price")
SAMPLE = ("user", "time_stamp", "adgroup_id", "pid", "nonclk", "clk")
BEHAVIOR = ("user", "time_stamp", "btag", "cate", "brand")


def feeds(folder: Path) -> list[Feed]:
    """The files of the data set and what each becomes; behavior_log.csv only when it is there."""
    found = [
        Feed("user_profile.csv", "users", "source_taobao_users", PROFILE),
        Feed("ad_feature.csv", "advertisers", "source_taobao_advertisers", AD),
        Feed("ad_feature.csv", "campaigns", "source_taobao_campaigns", AD),
        Feed("ad_feature.csv", "ads", "source_taobao_ads", AD),
        Feed("raw_sample.csv", "events", "source_taobao_samples", SAMPLE),
    ]
    if any((folder / f"behavior_log.csv{suffix}").is_file() for suffix in ("", ".gz", ".zst")):
        found.append(Feed("behavior_log.csv", "events", "source_taobao_behavior", BEHAVIOR))
    return found
