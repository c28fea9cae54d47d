# The same by make: only what changed is done again.
#   make -f pipeline.mk WORKSPACE=shop INBOX=inbox GATE=gate.toml
# Every folder of INBOX is loaded once, and again when a file in it is newer; models are brought up to date when
# data or settings are newer; slates are ranked again when models or INBOX/requests.jsonl are. Targets that
# are no file of adstool have a stamp in WORKSPACE/stamps.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SECONDEXPANSION:

WORKSPACE ?= shop
INBOX ?= inbox
GATE ?= gate.toml
ADSTOOL ?= adstool
adstool := $(ADSTOOL) --workspace $(WORKSPACE) --quiet
stamps := $(WORKSPACE)/stamps
folders := $(notdir $(patsubst %/,%,$(wildcard $(INBOX)/*/)))

all: $(WORKSPACE)/slates.jsonl $(WORKSPACE)/report.html

$(WORKSPACE)/adstool.toml:
	$(ADSTOOL) --quiet init $(WORKSPACE)

# The warehouse has one writer at a time: folders are loaded one after the other even with make -j.
.NOTPARALLEL:
$(stamps)/%.loaded: $$(wildcard $(INBOX)/%/*) | $(WORKSPACE)/adstool.toml
	$(adstool) ingest $(INBOX)/$*
	@mkdir -p $(@D) && touch $@

$(stamps)/run: $(folders:%=$(stamps)/%.loaded) $(WORKSPACE)/adstool.toml
	$(adstool) run
	@mkdir -p $(@D) && touch $@

$(stamps)/gate: $(stamps)/run $(GATE)
	$(adstool) evaluate engagement --gate $(GATE) > $(WORKSPACE)/quality.txt
	@touch $@

$(WORKSPACE)/slates.jsonl: $(stamps)/gate $(INBOX)/requests.jsonl
	$(adstool) rank --requests $(INBOX)/requests.jsonl > $@

$(WORKSPACE)/report.html: $(stamps)/gate
	$(adstool) report -o $@

.PHONY: all
