"""Real DeepSpeed engines on one and on two ranks, against the gradient written out by hand."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from learner.losses import kl_penalty
from mgrpo.methods.gcpo.answer_contexts import AnswerContexts
from mgrpo.methods.gcpo.causal_projection import causal_weights, projected_reference
from tests.learner.builders import random_completions, random_episodes, save_tiny_llama
from tests.learner.rank_worker import (
    EMA_DECAY,
    KL_WEIGHT,
    LAYER_KL_WEIGHTS,
    MINIBATCH_PROBLEMS,
    MINIBATCH_RATE,
    MINIBATCHES,
    MOVES,
    PHASE_TEMPERATURE,
    REPLAY_WEIGHT,
    mark_of,
    replayed_corrections,
)
from tests.learner.set_scenarios import (
    BETA,
    DISTILLED,
    KAPPA,
    OFFSETS,
    attempts_in_context,
    sides_of_pairs,
)
from tests.learner.tiny_models import save_tiny

DEADLINE_S = 400  # of all scenarios; on two quiet cores they take a quarter of that
REPOSITORY = Path(__file__).parents[2]
pytestmark = [pytest.mark.processes, pytest.mark.timeout(DEADLINE_S + 60)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_rank(rank, num_ranks, port, folder):
    arguments = [str(rank), str(num_ranks), str(port), str(folder)]
    log = (folder / f"rank-{rank}-of-{num_ranks}.log").open("w")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.learner.rank_worker", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=log,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    save_tiny_llama(folder / "tiny")
    save_tiny_llama(folder / "tied", tie_word_embeddings=True)
    save_tiny_llama(folder / "reference", initializer_range=0.19)
    save_tiny("Gemma 3 (images)", folder / "towers")
    save_tiny("DeepSeek V3", folder / "mixture")
    spoil_weights(save_tiny_llama(folder / "headless"), lambda one: one.pop("lm_head.weight"))
    spoil_weights(save_tiny_llama(folder / "overfull"), lambda one: one.update(more=torch.zeros(2)))
    return folder


def spoil_weights(directory, change):
    file = directory / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def results(folder):
    """What rank 0 found, by number of ranks. All three processes run side by side."""
    ports = {num_ranks: free_port() for num_ranks in (1, 2)}
    ranks = [(0, 1), (0, 2), (1, 2)]
    processes = [start_rank(rank, n, ports[n], folder) for rank, n in ranks]
    try:
        codes = [process.wait(timeout=DEADLINE_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
    logs = "\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("*.log")))
    assert codes == [0, 0, 0], logs
    return {n: torch.load(folder / f"results-{n}.pt", weights_only=False) for n in (1, 2)}


@dataclass(frozen=True)
class Definition:
    """An update's loss from its definition alone: whole logits, loops, no learner code."""

    model_name: str = "tiny"
    kl_weights: tuple[float, float] = (KL_WEIGHT, KL_WEIGHT)  # by layer
    temperature: float = 1.0
    has_first_layer: bool = True  # false: its advantages are 0
    has_importance_weights: bool = True
    divides_by_entropy: bool = False
    detaches_entropy: bool = True
    replays: bool = False

    def gradient(self, folder):
        model = LlamaForCausalLM.from_pretrained(folder / self.model_name)
        reference = LlamaForCausalLM.from_pretrained(folder / "reference")
        loss = self.loss(model, reference, random_completions())
        if self.replays:
            loss = loss + self.replayed_loss(model)
        loss.backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    def loss(self, model, reference, completions, old_logprobs=None):
        """Of one optimizer step: its completions have the denominators."""
        groups = {}
        for one in completions:
            groups.setdefault(one.group_key, []).append(one)
        loss = torch.zeros(())
        for group in groups.values():
            number = group[0].layer
            if number == 2 and not any(one.reward.value for one in group):
                continue  # groups_with_success
            num_sampled = sum(one.layer == number for one in completions)
            for one, advantage in zip(group, self.advantages(model, group), strict=True):
                old = None if old_logprobs is None else old_logprobs[one.completion_id]
                terms = self.token_losses(model, reference, one, advantage, old)
                loss = loss + terms.mean() / num_sampled
        return loss

    def advantages(self, model, group):
        rewards = torch.tensor([one.reward.value for one in group])
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        if group[0].layer == 1 and not self.has_first_layer:
            advantages = advantages * 0
        if not self.divides_by_entropy:
            return advantages
        entropies = torch.stack([self.naive(model, one)[1].mean() for one in group])
        relative = entropies / entropies.mean().detach()
        return advantages / (relative.detach() if self.detaches_entropy else relative)

    def token_losses(self, model, reference, one, advantage, old=None):
        logprobs, _ = self.naive(model, one)
        old = logprobs.detach() if old is None else old
        weights = 1.0
        if self.has_importance_weights:
            weights = (old - torch.tensor(one.rollout_logprobs)).exp().clamp(max=2)
        ratio = (logprobs - old).exp()
        objective = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        with torch.no_grad():
            ref_logprobs, _ = self.naive(reference, one)
        d = ref_logprobs - logprobs
        k3 = d.exp() - d - 1
        return -weights * objective + self.kl_weights[one.layer - 1] * k3

    def replayed_loss(self, model):
        replayed = replayed_corrections()
        objectives = []
        for one in replayed:
            logprobs, _ = self.naive(model, one.completion)
            ratio = (logprobs - torch.tensor(one.completion.rollout_logprobs)).exp()
            clipped = ratio.clamp(0.8, 1.2)
            objectives.append((torch.minimum(ratio, clipped) * one.advantage).mean())
            assert one.advantage > 0
        return -REPLAY_WEIGHT * torch.stack(objectives).mean()

    def naive(self, model, one):
        """[T] log-probabilities and entropies of a completion's tokens."""
        tokens = torch.tensor([[*one.prompt_token_ids, *one.token_ids]], dtype=torch.int64)
        first = len(one.prompt_token_ids)
        logits = model(input_ids=tokens).logits[0, first - 1 : -1] / self.temperature
        logprobs = logits.log_softmax(dim=-1)
        chosen = logprobs.gather(1, tokens[0, first:, None])[:, 0]
        return chosen, -(logprobs.exp() * logprobs).sum(dim=1)


@pytest.fixture(scope="module")
def expected_gradient(folder):
    return Definition().gradient(folder)


NO_KL = (0.0, 0.0)
METHODS = {
    "entropy": Definition(kl_weights=NO_KL, temperature=PHASE_TEMPERATURE, divides_by_entropy=True),
    "entropy_not_detached": Definition(
        kl_weights=NO_KL,
        has_importance_weights=False,
        divides_by_entropy=True,
        detaches_entropy=False,
    ),
    "layer_kl": Definition(
        kl_weights=(LAYER_KL_WEIGHTS[1], LAYER_KL_WEIGHTS[2]), has_first_layer=False
    ),
    "replayed": Definition(kl_weights=NO_KL, replays=True),
}


def relative_difference(found, expected):
    assert found.keys() == expected.keys()
    squares = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    return (squares / sum(float(value.square().sum()) for value in expected.values())) ** 0.5


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("scenario", ["zero0", "zero1", "zero2", "zero3"])
def test_the_gradient_is_the_definitions_for_any_ranks_and_sharding(
    results, expected_gradient, num_ranks, scenario
):
    found = results[num_ranks][scenario]["gradient"]
    assert relative_difference(found, expected_gradient) < 1e-5


@pytest.mark.parametrize("scenario", METHODS)
def test_what_a_method_changes_is_its_definition_on_one_and_two_ranks(results, folder, scenario):
    expected = METHODS[scenario].gradient(folder)
    for num_ranks in (1, 2):
        assert relative_difference(results[num_ranks][scenario], expected) < 1e-5


def test_of_two_turns_the_policys_tokens_train_and_what_it_read_between_is_their_context(
    results, folder
):
    model = LlamaForCausalLM.from_pretrained(folder / "tiny")
    reference = LlamaForCausalLM.from_pretrained(folder / "reference")
    episodes, losses = random_episodes(), []
    for group in (episodes[:4], episodes[4:]):
        for one, advantage in zip(group, Definition().advantages(model, group), strict=True):
            terms = Definition().token_losses(model, reference, one, advantage)
            losses.append(terms[torch.tensor(one.is_sampled)].mean())
    (sum(losses) / len(episodes)).backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    for num_ranks in (1, 2):
        assert relative_difference(results[num_ranks]["two_turns"], expected) < 1e-5


def test_what_is_summed_over_right_answers_does_not_depend_on_ranks_or_sharding(results, folder):
    """NTHR: one sum per group, of states and distributions that lie on different ranks."""
    one, two = results[1]["nthr"], results[2]["nthr"]
    assert relative_difference(two, one) < 1e-4
    assert relative_difference(one, Definition(kl_weights=NO_KL).gradient(folder)) > 0.01


def test_replayed_ratios_lie_on_both_sides_of_the_clip_range(folder):
    model = LlamaForCausalLM.from_pretrained(folder / "tiny")
    clipped = []
    for one in replayed_corrections():
        logprobs, _ = Definition().naive(model, one.completion)
        ratios = (logprobs - torch.tensor(one.completion.rollout_logprobs)).exp()
        clipped += (ratios > 1.2).tolist()
    assert 0 < sum(clipped) < len(clipped)


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("zero_stage", [0, 2, 3])
@torch.no_grad()
def test_states_and_distributions_are_the_models_for_any_ranks_and_sharding(
    results, folder, num_ranks, zero_stage
):
    """Last states, and the sum over tokens of (one-hot - distribution) times state."""
    model = LlamaForCausalLM.from_pretrained(folder / "tiny")
    states, products = [], torch.zeros(64, 32)
    for one in random_completions():
        tokens = torch.tensor([[*one.prompt_token_ids, *one.token_ids]], dtype=torch.int64)
        first = len(one.prompt_token_ids)
        hidden = model.model(input_ids=tokens).last_hidden_state[0]
        distributions = model.lm_head(hidden[first - 1 : -1]).softmax(dim=-1)
        onehot = torch.nn.functional.one_hot(tokens[0, first:], 64)
        products += (onehot - distributions).T @ hidden[first - 1 : -1]
        states.append(hidden[-1])
    found = results[num_ranks][f"zero{zero_stage}_read"]
    torch.testing.assert_close(found["states"], torch.stack(states), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["products"], products, rtol=1e-4, atol=1e-3)


AVERAGED = ["zero0_ema", "zero2_ema", "zero3_ema", "zero3_whole_ema"]


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("scenario", AVERAGED)
def test_the_average_follows_the_policy_for_any_ranks_and_sharding(results, num_ranks, scenario):
    """Of what the policy was after updates 2 and 4; in between it stays."""
    found = results[num_ranks][scenario]
    assert found["leaves_gpu"]
    policies, averages = found["policies"], found["averages"]
    for name in policies[0]:
        first = EMA_DECAY * policies[0][name] + (1 - EMA_DECAY) * policies[2][name]
        second = EMA_DECAY * first + (1 - EMA_DECAY) * policies[4][name]
        expected = [policies[0][name]] * 2 + [first] * 2 + [second]
        for average, value in zip(averages, expected, strict=True):
            torch.testing.assert_close(average[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("scenario", AVERAGED)
@torch.no_grad()
def test_the_averages_logprobs_are_of_the_average_as_it_is(results, folder, num_ranks, scenario):
    found = results[num_ranks][scenario]
    model = LlamaForCausalLM.from_pretrained(folder / "tiny")
    for seed, average in enumerate(found["averages"][:-1]):
        model.load_state_dict(average)
        completions = random_completions(seed=seed)
        expected = sum(float(Definition().naive(model, one)[0].sum()) for one in completions)
        assert found["sums"][seed] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("scenario", AVERAGED)
def test_the_average_goes_on_from_a_checkpoint(results, num_ranks, scenario):
    found = results[num_ranks][scenario]
    for name, value in found["resumed"].items():
        torch.testing.assert_close(value, found["averages"][-1][name], rtol=0, atol=1e-6)


def test_under_zero_3_each_rank_holds_its_own_shards_of_the_average(results):
    whole, half = results[1]["zero3_ema"], results[2]["zero3_ema"]
    assert [2 * count for count in half["shards"]] == whole["shards"]
    for stage in (2, 3):
        assert results[2][f"zero{stage}_ema"]["files"] == [
            f"average-zero{stage}-{rank:05d}-of-00002.safetensors" for rank in range(2)
        ]


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_the_average_of_a_bfloat16_policy_is_kept_in_float32(results, num_ranks):
    found = results[num_ranks]["zero3_bf16_ema"]
    assert found["kept"] < 1e-6 < found["read"] < 0.01


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_measurements_are_measured_where_attempts_are_only_told_of(results, num_ranks):
    found = results[num_ranks]["measured_without_attempts"]
    assert found["selections"] == [36, 0]
    assert found["metrics"][0]["learner/skipped_updates"] == (0.0, 1.0)
    assert found["metrics"][1]["learner/skipped_updates"] == (1.0, 1.0)
    assert found["version"] == 2


@pytest.mark.parametrize(
    ("num_ranks", "scenario"),
    [(1, "one_batch"), (1, "checkpointed"), (2, "zero3_checkpointed"), (1, "padded")],
)
def test_merging_padding_and_checkpointing_give_the_same_gradient(
    results, expected_gradient, num_ranks, scenario
):
    found = results[num_ranks][scenario]["gradient"]
    assert relative_difference(found, expected_gradient) < 1e-5


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("scenario", ["zero2_tied", "zero3_tied"])
def test_tied_embeddings_train_and_travel_once(results, folder, num_ranks, scenario):
    found = results[num_ranks][scenario]["gradient"]
    assert "lm_head.weight" not in found and "model.embed_tokens.weight" in found
    assert relative_difference(found, Definition(model_name="tied").gradient(folder)) < 1e-5


def test_a_rank_without_rows_takes_part_with_nothing(results):
    one, two = results[1]["lone_row"], results[2]["lone_row"]
    assert relative_difference(two, one) < 1e-6


def test_zero_3_never_holds_the_whole_model_while_loading(results):
    held = {name: results[2][name]["held_when_loaded"] for name in ("zero2", "zero3")}
    assert held["zero3"] == 0 < held["zero2"]


@pytest.mark.parametrize(("num_ranks", "scenario"), [(1, "zero0_bf16"), (2, "zero3_bf16")])
def test_bfloat16_approximates_the_gradient(results, expected_gradient, num_ranks, scenario):
    found = results[num_ranks][scenario]["gradient"]
    assert relative_difference(found, expected_gradient) < 0.05


@pytest.mark.parametrize(("num_ranks", "scenario"), [(1, "zero0_bf16"), (2, "zero3_bf16")])
def test_bfloat16_leaves_the_rotary_frequencies_exact(results, num_ranks, scenario):
    """As engines have them. Rounded ones turn positions by radians at position 1000."""
    frequencies = results[num_ranks][scenario]["frequencies"]
    (exact,) = {tuple(each.tolist()) for each in results[1]["zero0"]["frequencies"]}
    assert len(frequencies) == 2  # of the policy, and of the reference
    for found in frequencies:
        assert found.dtype == torch.float32
        assert tuple(found.tolist()) == exact


@pytest.mark.parametrize("scenario", ["zero0", "zero3"])
def test_metrics_do_not_depend_on_ranks_or_microbatches(results, scenario):
    one, two, whole = (
        results[1][scenario]["metrics"],
        results[2][scenario]["metrics"],
        results[1]["one_batch"]["metrics"],
    )
    # How many tokens are computed, and how fast, is all that packing may change.
    names = whole.keys() - {"learner/input_tokens", "measurements/ref_logprobs_s"}
    for name in names:
        assert one[name] == pytest.approx(whole[name], rel=1e-4), name
        assert two[name] == pytest.approx(whole[name], rel=1e-4), name
    assert one.keys() == two.keys() == whole.keys()
    computed = [found["learner/input_tokens"][0] for found in (whole, one)]
    assert computed[0] < computed[1] < whole["learner/row_tokens"][0]


def test_the_reported_norm_is_the_gradients(results, expected_gradient):
    norm = sum(float(value.square().sum()) for value in expected_gradient.values()) ** 0.5
    for scenario in ("zero0", "zero1", "zero2", "zero3"):
        found = results[2][scenario]["metrics"]["learner/grad_norm"]
        assert found == (pytest.approx(norm, rel=1e-4), 1.0)


def test_the_ratio_is_one_on_fresh_data_so_nothing_is_clipped(results):
    metrics = results[2]["zero3"]["metrics"]
    trained_tokens = metrics["learner/tokens"][0]
    assert metrics["learner/clip_fraction"] == (0.0, trained_tokens)
    assert metrics["learner/kl"][0] > 0 and metrics["learner/kl"][1] == trained_tokens
    gap_mean = metrics["mismatch/logprob_gap_mean"][0] / trained_tokens
    gap_p99, gap_max = (metrics[f"mismatch/logprob_gap_{name}"][0] for name in ("p99", "max"))
    assert 0 < gap_mean < gap_p99 <= gap_max


def test_a_second_pass_is_measured_against_the_first_policy(results):
    metrics = results[1]["two_passes"]
    total, count = metrics["learner/clip_fraction"]
    assert 0 < total < count  # the second pass leaves the clip range, the first cannot
    assert metrics["learner/loss"][1] == metrics["learner/grad_norm"][1] == 2.0
    assert metrics["mismatch/logprob_gap_max"][1] == 1.0


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_metadata_agrees_with_the_weights_under_zero_3(results, num_ranks):
    found = results[num_ranks]["zero3"]
    assert [name for name, _, _ in found["metadata"]] == list(found["shapes"])
    for name, dtype, shape in found["metadata"]:
        assert shape == found["shapes"][name] and dtype == "float32"
    assert found["shapes"]["lm_head.weight"] == (64, 32)


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_updates_raise_the_rewarded_completion_over_the_other(results, num_ranks):
    found = results[num_ranks]["improvement"]
    good = [one for one, _ in found["probes"]]
    bad = [one for _, one in found["probes"]]
    assert good == sorted(good) and good[-1] > good[0] + 0.1
    assert bad[-1] < bad[0] - 0.1
    assert found["versions"] == [1, 2, 3]
    first = found["selections"][0]
    assert [one.completion_id for one in first] == ["q/1", "q/2"]
    assert first[0].advantage == pytest.approx(0.7071, abs=1e-4)


def test_one_and_two_ranks_learn_the_same(results):
    one, two = (results[n]["improvement"]["probes"] for n in (1, 2))
    assert one[-1] == pytest.approx(two[-1], abs=1e-3)


def test_a_step_without_training_signal_changes_no_weight_and_says_so(results):
    found = results[1]["skipped"]
    assert found["unchanged"] and found["version"] == 1
    assert found["metrics"]["learner/skipped_updates"] == (1.0, 1.0)
    assert found["metrics"]["layer1/zero_variance_fraction"] == (3.0, 3.0)


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_an_update_by_too_large_a_gradient_leaves_the_weights_alone(results, num_ranks, zero_stage):
    found = results[num_ranks][f"zero{zero_stage}_large"]
    assert found["moved"] == [False, True, False]
    assert found["skipped"] == [(1.0, 1.0), (0.0, 1.0), (1.0, 1.0)]
    assert found["version"] == 3


@pytest.mark.parametrize(
    ("num_ranks", "scenario", "what"),
    [
        (1, "zero0_refused", "gradient"),
        (1, "zero3_refused", "gradient"),
        (2, "zero3_refused", "gradient"),
        (1, "rollout_refused", "loss"),
    ],
)
def test_a_value_that_is_not_finite_stops_the_update_before_the_weights(
    results, num_ranks, scenario, what
):
    found = results[num_ranks][scenario]
    assert found["unchanged"]
    assert f"The {what} of update 1 is" in found["message"]
    assert "raise learner.max_nonfinite_updates" in found["message"]


def test_the_completion_with_broken_rollout_logprobs_is_named(results):
    message = results[1]["rollout_refused"]["message"]
    assert "p0/1" in message and "the engine's fault" in message


def test_the_parameters_with_a_broken_gradient_are_named(results):
    message = results[1]["zero0_refused"]["message"]
    assert "gradient of model.layers.0." in message
    assert "learner.learning_rate" in message


@pytest.mark.parametrize(("num_ranks", "zero_stage"), [(1, 0), (1, 1), (2, 2), (2, 3)])
def test_an_update_that_is_left_out_changes_nothing_and_the_next_is_as_if_it_had_not_been(
    results, num_ranks, zero_stage
):
    found = results[num_ranks][f"zero{zero_stage}_left_out"]
    for name, weight in found["without"].items():
        torch.testing.assert_close(found["with"][name], weight, rtol=1e-6, atol=1e-6)
    first, second, third = found["results"]
    assert (first.warnings, third.warnings) == ([], [])
    assert "p0/1 are not finite, which is the engine's fault" in second.warnings[0]
    assert "left out, 1 of 1 in a row" in second.warnings[0]
    assert second.metrics["learner/nonfinite_updates"] == (1.0, 1.0)
    assert second.metrics["learner/skipped_updates"] == (1.0, 1.0)
    assert "(it is 1, in a row)" in found["message"]


def test_log_probabilities_that_are_off_are_named_on_whichever_rank_and_can_stop_the_run(results):
    found = results[2]["shifted"]
    (said,) = found["warned"].warnings
    for words in ("engine-0 recorded", "in layer 1", "p0/1 by +", "engine-1 recorded", "by -"):
        assert words in said and words in found["message"]
    assert found["warned"].metrics["mismatch/shifted_completions"] == (2.0, 1.0)
    assert found["unchanged"] and "weights were not changed" in found["message"]


@pytest.mark.parametrize("zero_stage", [0, 2])
def test_a_gradient_whose_norm_is_beyond_its_type_moves_no_weight(results, zero_stage):
    found = results[1][f"zero{zero_stage}_unlimited"]
    assert found["unchanged"]
    assert "gradient norm of update 1 is inf" in found["warnings"][0]


def test_weights_that_are_not_finite_are_named_by_the_probe(results):
    message = results[1]["broken_weights"]
    assert "model.norm.weight are not finite themselves" in message


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_weights_that_are_missing_or_unknown_are_found_under_zero_3_too(results, num_ranks):
    found = results[num_ranks]["incomplete"]
    assert "no weights for: lm_head.weight" in found["headless"]
    assert "does not have: more" in found["overfull"]


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_mixtures_experts_are_sent_one_by_one_and_their_biases_unrounded(
    results, folder, num_ranks
):
    found = results[num_ranks]["mixture"]
    file = load_file(folder / "mixture" / "model.safetensors")
    assert found["sent"].keys() == file.keys()
    assert "model.layers.1.mlp.experts.3.down_proj.weight" in file
    for name, dtype, shape in found["metadata"]:
        is_bias = name.endswith("e_score_correction_bias")
        assert dtype == ("float32" if is_bias else "bfloat16") and shape == file[name].shape
        assert torch.equal(found["sent"][name], file[name].to(getattr(torch, dtype)))


TOWERS = [(n, f"zero{stage}_towers") for n in (1, 2) for stage in (0, 2, 3)]


@pytest.mark.parametrize(("num_ranks", "scenario"), TOWERS)
def test_a_model_with_towers_trains_its_text_for_any_ranks_and_sharding(
    results, folder, num_ranks, scenario
):
    found, expected = results[num_ranks][scenario], results[1]["zero0_towers"]
    file = load_file(folder / "towers" / "model.safetensors")
    assert found["gradient"].keys() == file.keys()
    assert found["metadata"] == [
        (name, "float32", tuple(one.shape)) for name, one in found["after"].items()
    ]
    for name, gradient in found["gradient"].items():
        is_text = "language_model" in name
        assert bool(gradient.any()) == is_text, name
        assert_close(gradient, expected["gradient"][name], atol=2e-6, rtol=1e-3)
    saved = load_file(Path(found["folder"]) / "model.safetensors")
    assert saved.keys() == file.keys()
    for name, weight in found["after"].items():
        assert torch.equal(saved[name], weight) and torch.equal(found["resumed"][name], weight)


@pytest.mark.parametrize(
    ("num_ranks", "scenario"), [(1, "zero0_saved"), (1, "zero3_saved"), (2, "zero3_saved")]
)
def test_a_saved_policy_loads_with_the_weights_as_broadcast(results, num_ranks, scenario):
    found = results[num_ranks][scenario]
    saved = Path(found["folder"])
    model = AutoModelForCausalLM.from_pretrained(saved, use_safetensors=True, dtype="auto")
    loaded = dict(model.named_parameters())
    assert loaded.keys() == found["weights"].keys()
    for name, tensor in found["weights"].items():
        assert tensor.dtype == loaded[name].dtype == torch.bfloat16
        assert torch.equal(loaded[name], tensor)
    assert json.loads((saved / "tokenizer.json").read_text()) == {"made_for": "the test"}
    assert json.loads((saved / "config.json").read_text())["dtype"] == "bfloat16"
    leftovers = [path.name for path in saved.parent.iterdir() if path.name.startswith(".saved")]
    assert leftovers == []


def test_the_learning_rate_follows_the_schedule(results):
    # Warm-up of 2 to 0.01, then linearly over the remaining 8 of 10 steps.
    assert results[1]["schedule"] == pytest.approx([0.005, 0.01, 0.01, 0.00875])


@pytest.mark.parametrize(
    ("num_ranks", "scenario"),
    [
        (1, "bf16_offloaded"),
        (1, "zero2_offloaded"),
        (2, "zero2_offloaded"),
        (1, "host_optimizer_offloaded"),
        (2, "host_optimizer_offloaded"),
    ],
)
def test_a_learner_that_leaves_its_gpu_after_each_update_learns_the_same(
    results, num_ranks, scenario
):
    found = results[num_ranks][scenario]
    assert found["found_probes"] == found["probes"]
    for stayed, sent in zip(found["policies"], found["sent"], strict=True):
        assert all(torch.equal(sent[name], tensor) for name, tensor in stayed.items())
    first, last = found["policies"][0], found["policies"][-1]
    assert any(not torch.equal(first[name], last[name]) for name in last)
    for name, tensor in last.items():
        assert torch.equal(found["resumed"][name], tensor), name


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_an_optimizer_in_host_memory_learns_the_same_and_stays_there(results, num_ranks):
    moving, staying = (
        results[num_ranks][name] for name in ("zero2_offloaded", "host_optimizer_offloaded")
    )
    assert staying["away"] == {"lp_params"} < moving["away"]
    for name, tensor in moving["policies"][-1].items():
        torch.testing.assert_close(staying["policies"][-1][name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("num_ranks", "scenario"),
    [
        (1, "zero0_resumed"),
        (1, "zero2_resumed"),
        (1, "zero3_resumed"),
        (2, "zero2_resumed"),
        (2, "zero3_resumed"),
    ],
)
def test_a_resumed_learner_continues_the_same_numbers(results, num_ranks, scenario):
    found = results[num_ranks][scenario]
    assert found["version"] == 2
    for name, tensor in found["uninterrupted"].items():
        assert torch.equal(found["resumed"][name], tensor), name
    assert found["remembered"] == 2  # updates that its plug-in has seen
    assert "There is no learner state in" in found["message"]


def test_a_planted_pickle_in_a_whole_checkpoint_is_refused_and_does_not_run(results, folder):
    said = results[1]["planted"]
    kinds = {name.partition("-zero")[0] for name in said}
    assert kinds == {"weights", "exp_avg", "exp_avg_sq", "common.pt"}
    for name, message in said.items():
        reason = "is not loaded, because it holds more" if name == "common.pt" else "cannot be read"
        assert f"{name} {reason}" in message
        assert not mark_of(folder, name).exists()


# --- losses of several rows ---


def sequence_logprob(model, prompt, tokens):
    """[T] log-probabilities, by whole logits."""
    ids = torch.tensor([[*prompt, *tokens]])
    logprobs = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return logprobs.gather(1, torch.tensor(tokens)[:, None])[:, 0]


@pytest.fixture(scope="module")
def pairs_by_definition(folder):
    """The policy's log-probabilities of both sides, and the gradient of the pairs' mean loss."""
    model = LlamaForCausalLM.from_pretrained(folder / "tiny")
    sums = torch.stack(
        [
            sequence_logprob(model, one.prompt_token_ids, one.token_ids).sum()
            for one in sides_of_pairs()
        ]
    )
    ratios = sums - (sums.detach() + torch.tensor(OFFSETS))
    loss = -torch.nn.functional.logsigmoid(BETA * (ratios[::2] - ratios[1::2])).mean()
    loss.backward()
    gradient = {name: parameter.grad for name, parameter in model.named_parameters()}
    return sums.tolist(), float(loss.detach()), gradient


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("scenario", ["zero0_pairs", "zero3_pairs"])
def test_pairs_are_pulled_apart_by_their_definition_for_any_ranks_and_sharding(
    results, pairs_by_definition, num_ranks, scenario
):
    logprobs, loss, gradient = pairs_by_definition
    found = results[num_ranks][scenario]
    assert found["measured"] == pytest.approx(logprobs, abs=1e-4)
    assert relative_difference(found["gradient"], gradient) < 1e-5
    total, count = found["metrics"]["dpo/loss"]
    assert (total / count, count) == (pytest.approx(loss, rel=1e-5), 3.0)
    assert found["metrics"]["learner/loss"][0] == pytest.approx(loss, rel=1e-5)


@pytest.fixture(scope="module")
def contexts_by_definition(folder):
    """The gradient of GCPO's loss, written out: advantages weighed, and the second KL term."""
    model = LlamaForCausalLM.from_pretrained(folder / "tiny")
    completions = attempts_in_context()

    def last_state(tokens):
        hidden = model.get_decoder()(input_ids=torch.tensor([tokens])).last_hidden_state
        return hidden[0, -1].detach()

    loss = torch.zeros(())
    for problem in range(3):
        group = [one for one in completions if one.problem_id == f"p{problem}"]
        rewards = torch.tensor([one.reward.value for one in group])
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        states = torch.stack([last_state([*one.prompt_token_ids, *one.token_ids]) for one in group])
        for one, state, advantage in zip(group, states, advantages, strict=True):
            contexts = AnswerContexts(**one.metadata["answer_contexts"])
            prompts = [contexts.prompt(one.completion_id, number) for number in (0, 1)]
            shown = torch.stack([last_state(prompt) for prompt in prompts])
            weight = causal_weights(
                state[None], shown[:1], shown.mean(0)[None], states.mean(0), alpha=2.0
            )
            own = sequence_logprob(model, one.prompt_token_ids, one.token_ids)
            ratio = (own - own.detach()).exp()
            in_context = [sequence_logprob(model, prompt, one.token_ids) for prompt in prompts]
            by_answer = torch.stack(in_context).detach()
            target = projected_reference(by_answer[0], by_answer, own.detach())
            terms = -advantage * weight * ratio + KAPPA * kl_penalty(in_context[0], target)
            loss = loss + terms.mean() / len(completions)
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("scenario", ["zero0_contexts", "zero3_contexts"])
def test_answers_in_context_train_by_their_definition_for_any_ranks_and_sharding(
    results, contexts_by_definition, num_ranks, scenario
):
    found = results[num_ranks][scenario]["gradient"]
    assert relative_difference(found, contexts_by_definition) < 2e-5


@pytest.fixture(scope="module")
def distilled_by_definition(folder):
    """The gradient of both turns by GRPO, and of corrections as answers to the problem alone."""
    model = LlamaForCausalLM.from_pretrained(folder / "tiny")
    completions = random_completions()
    attempts = [one for one in completions if one.layer == 1]
    corrections = [one for one in completions if one.layer == 2]

    def mean_ratio(prompt, one):
        logprobs = sequence_logprob(model, prompt, one.token_ids)
        return (logprobs - logprobs.detach()).exp().mean()

    loss = torch.zeros(())
    for layer in (attempts, corrections):
        for one in layer:
            group = [other.reward.value for other in layer if other.group_key == one.group_key]
            rewards = torch.tensor(group)
            advantage = (one.reward.value - rewards.mean()) / (rewards.std() + 1e-6)
            loss = loss - advantage * mean_ratio(one.prompt_token_ids, one) / len(layer)
    for one in corrections:
        first = [other for other in attempts if other.problem_id == one.problem_id]
        advantage = one.reward.value - sum(other.reward.value for other in first) / len(first)
        ratio = mean_ratio(first[0].prompt_token_ids, one)
        loss = loss - DISTILLED * advantage * ratio / len(corrections)
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("scenario", ["zero0_distilled", "zero3_distilled"])
@pytest.mark.parametrize("form", ["whole", "streamed"])
def test_corrections_as_answers_to_the_problem_train_by_their_definition(
    results, distilled_by_definition, num_ranks, scenario, form
):
    """Sampled under another prompt, for any ranks and sharding."""
    found = results[num_ranks][scenario][form]
    assert relative_difference(found, distilled_by_definition) < 2e-5


# --- an update whose trees come one after the other ---


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize(
    ("stage", "parts"), [*((stage, "two") for stage in range(4)), (0, "one"), (3, "one")]
)
def test_trees_that_come_one_by_one_give_the_gradient_of_the_whole(
    results, num_ranks, stage, parts
):
    found = results[num_ranks][f"zero{stage}_streamed"]
    assert found[parts]["version"] == found["whole"]["version"] == 1
    largest = max(float(value.abs().max()) for value in found["whole"]["gradient"].values())
    assert largest > 0.1
    for name, whole in found["whole"]["gradient"].items():
        assert_close(found[parts]["gradient"][name], whole, rtol=0, atol=1e-6, msg=name)
    for name in ("learner/loss", "learner/grad_norm", "learner/kl", "layer2/selected_fraction"):
        whole, streamed = (found[kind]["metrics"][name] for kind in ("whole", parts))
        assert streamed == pytest.approx(whole, rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_they_do_in_bfloat16_to_its_precision(results, num_ranks, stage):
    found = results[num_ranks][f"zero{stage}_bf16_streamed"]
    for name, whole in found["whole"]["gradient"].items():
        assert_close(found["two"]["gradient"][name], whole, rtol=0, atol=0.02, msg=name)


@pytest.fixture(scope="module")
def minibatches_by_hand(folder):
    """The change of the weights by a step on each minibatch, old log-probabilities fixed."""
    model = LlamaForCausalLM.from_pretrained(folder / "tiny")
    reference = LlamaForCausalLM.from_pretrained(folder / "reference")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    definition, completions = Definition(), random_completions(MINIBATCH_PROBLEMS)
    with torch.no_grad():
        old = {one.completion_id: definition.naive(model, one)[0] for one in completions}
    for problems in MINIBATCHES:
        part = [one for one in completions if one.problem_id in problems]
        model.zero_grad()
        definition.loss(model, reference, part, old).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= MINIBATCH_RATE * parameter.grad
    return {name: value - before[name] for name, value in model.state_dict().items()}


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("stage", [0, 2])
def test_minibatches_are_steps_on_parts_with_the_old_policy_fixed(
    results, minibatches_by_hand, num_ranks, stage
):
    found = results[num_ranks][f"zero{stage}_minibatches"]
    change = {name: found["after"][name] - value for name, value in found["before"].items()}
    assert relative_difference(change, minibatches_by_hand) < 1e-5
    metrics = found["metrics"]
    assert metrics["learner/optimizer_steps"] == (3.0, 1.0)
    assert metrics["learner/loss"][1] == metrics["learner/grad_norm"][1] == 3.0
    assert metrics["learner/tokens"][1] == 1.0
    assert metrics["learner/clip_fraction"][0] > 0
    assert found["version"] == 1


@pytest.mark.parametrize("stage", [0, 2])
def test_minibatches_on_two_ranks_are_those_on_one(results, stage):
    one, two = (results[n][f"zero{stage}_minibatches"] for n in (1, 2))
    for name, value in one["after"].items():
        assert_close(two["after"][name], value, rtol=0, atol=1e-6, msg=name)
    for name in ("learner/loss", "learner/tokens", "learner/kl", "mismatch/logprob_gap_max"):
        assert two["metrics"][name] == pytest.approx(one["metrics"][name], rel=1e-5), name


@pytest.mark.parametrize(
    ("num_ranks", "stage", "saved"),
    [(num_ranks, *one) for num_ranks, moves in MOVES.items() for one in moves],
)
def test_a_learner_goes_on_from_other_ranks_and_another_zero_stage(
    results, num_ranks, stage, saved
):
    found = results[num_ranks][f"{saved}-to-{num_ranks}-{stage}"]
    before_ranks, before_stage = map(int, saved.split("-"))
    source = results[before_ranks][f"zero{before_stage}_resumed"]
    for name, tensor in source["saved"].items():
        assert torch.equal(found["loaded"][name], tensor), name
    # To the bit the same weights, moments and numbers of steps, in other files.
    assert found["before"].keys() == found["after"].keys()
    kinds = {name.split()[0] for name in found["before"]}
    assert kinds == {"weights", "exp_avg", "exp_avg_sq", "values"}
    for name, value in found["before"].items():
        same = torch.equal if isinstance(value, torch.Tensor) else dict.__eq__
        assert same(found["after"][name], value), name
    assert len(found["files"]) == 3 * num_ranks + 1
    # The next step is the same but for the order in which ranks are summed.
    for name, tensor in source["uninterrupted"].items():
        assert_close(found["next"][name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    assert (found["version"], found["remembered"]) == (2, 2)
