"""Recipes: what can be written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from energysim.errors import InputError
from energysim.train.data import UNCHANGED, digits, shapes
from energysim.train.recipe import RECIPES, Augment, Recipe
from energysim.yamlio import load_model, to_yaml


def test_a_recipe_file_says_all_that_a_recipe_has(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    for recipe in RECIPES.values():
        path.write_text(to_yaml(recipe.model_dump(mode="json")))
        assert load_model(path, Recipe)[0] == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3\n", r"own\.yaml:1:1 epoch: .*Did you mean 'epochs'"),
        ("epochs: 0\n", r"own\.yaml:1:9 epochs: "),
        ("schedule: triangel\n", r"own\.yaml:1:11 schedule: .*triangle"),
        ("lr: -0.1\n", r"own\.yaml:1:5 lr: "),
        ("stop_after: 3\n", "needs images held out"),
        ("schedule: multistep\nmilestones: [40, 20]\n", "milestones must rise"),
        ("milestones: [4]\n", "milestones belong to schedule: multistep"),
        ("batch: 2\nshards: 4\n", "a batch of 2 can't be cut into 4 shards"),
    ],
)
def test_mistakes_in_a_recipe_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_model(path, Recipe)


def test_the_paper_s_recipe() -> None:
    """S. Kundu et al., IEEE Trans. Computers 2020, section 5.1, and the authors' code."""
    paper = RECIPES["paper"]
    assert (paper.epochs, paper.batch, paper.weight_decay) == (150, 128, 5e-4)
    steps = [paper.learning_rate(epoch, 0, 1) for epoch in (0, 39, 40, 80, 100, 115, 130, 140)]
    expected = [0.1, 0.1, *(0.1 * 0.2**power for power in range(1, 7))]
    assert steps == pytest.approx(expected)


def test_auto_changes_colour_images_only() -> None:
    assert Recipe().augmentation(digits()) == UNCHANGED
    changed = Recipe().augmentation(shapes())
    assert (changed.padding, changed.flip) == (4, True)
    assert not Recipe(augment=Augment.CROP).augmentation(shapes()).flip


def test_recipes_can_t_be_changed() -> None:
    with pytest.raises(ValidationError):
        RECIPES["default"].lr = 1.0
