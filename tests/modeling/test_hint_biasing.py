"""The bonus of hints against brute force: over random hints and texts, and over all answers of tiny models."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import TEXT_CONFIGS, noise, tiny_model, tiny_processor

from speechverse.modeling_speechverse.hint_biasing import HintLogitsProcessor


EOS, VOCAB_SIZE = 0, 5  # of the random texts
PROMPT_LENGTH = {"t5": 1, "llama": 0}

every_llm = pytest.mark.parametrize("text", TEXT_CONFIGS)

# Three letters only, so that hints repeat, overlap, nest, and begin and end one another.
a_hint = st.lists(st.integers(1, 3), min_size=1, max_size=5)
some_hints = st.lists(a_hint, max_size=6)
texts_of_one_length = st.integers(1, 9).flatmap(
    lambda length: st.lists(st.lists(st.integers(0, 4), min_size=length, max_size=length), min_size=4, max_size=4)
)


def covered(tokens, hints):
    """The positions in `tokens` that lie in an occurrence of a hint."""
    starts = [(start, hint) for start in range(len(tokens)) for hint in hints if hint]
    occurrences = [(start, hint) for start, hint in starts if list(tokens[start : start + len(hint)]) == hint]
    return {start + offset for start, hint in occurrences for offset in range(len(hint))}


def begun(tokens, hints):
    """The positions of the longest end of `tokens` that a hint begins with."""
    for start in range(len(tokens)):
        if any(hint[: len(tokens) - start] == tokens[start:] for hint in hints):
            return set(range(start, len(tokens)))
    return set()


def until_eos(tokens, eos):
    tokens = list(tokens)
    return tokens[: tokens.index(eos)] if eos in tokens else tokens


@settings(max_examples=100, deadline=None)
@given(texts_of_one_length, st.lists(some_hints, min_size=2, max_size=2), st.booleans(), st.randoms())
def test_every_token_of_every_step_gains_what_brute_force_says(texts, hints_of_rows, is_cut, random):
    steps = len(texts[0])
    processor = HintLogitsProcessor(
        [hints or None for hints in hints_of_rows],
        2.0,
        prompt_length=1,
        eos_token_id=EOS,
        max_new_tokens=steps if is_cut else None,
    )
    total = {(row, ()): 0.0 for row in range(2)}
    for step in range(steps):
        # Two beams for each row of the batch; those of a row change places between steps.
        order = [row for pair in ([0, 1], [2, 3]) for row in random.sample(pair, 2)]
        prefixes = [texts[row][:step] for row in order]
        input_ids = torch.tensor([[4, *prefix] for prefix in prefixes])
        gains = processor(input_ids, torch.zeros(4, VOCAB_SIZE)).tolist()
        for beam, prefix in enumerate(prefixes):
            hints = hints_of_rows[beam // 2]
            if EOS in prefix:
                assert gains[beam] == [0.0] * VOCAB_SIZE
            for token in range(VOCAB_SIZE):
                tokens = [*prefix, token]
                seen = until_eos(tokens, EOS)
                counted = covered(seen, hints)
                if EOS not in tokens and not (is_cut and step == steps - 1):
                    counted |= begun(seen, hints)
                total[beam // 2, tuple(tokens)] = total[beam // 2, tuple(prefix)] + gains[beam][token]
                assert total[beam // 2, tuple(tokens)] == 2.0 * len(counted)


@pytest.mark.parametrize(
    "hints, tokens, counted",
    [
        ([[1, 2], [1, 2, 3]], [1, 2, 3], 3),  # one begins the other
        ([[1, 2, 3], [2], [2, 3]], [1, 2, 3], 3),  # the others end it, or lie in it
        ([[1, 2, 3], [2]], [1, 2, 4], 1),  # what lay in it is kept when it fails
        ([[1, 2], [2, 3, 1]], [1, 2, 3, 1], 4),  # they overlap in the text
        ([[1, 1, 2], [1, 3]], [1, 1, 1, 3], 2),  # a failure falls back to another
        ([[1, 1]], [1, 1, 1, 1], 4),  # it overlaps with itself
        ([[1, 2], [1, 2]], [1, 2, 4, 1, 2], 4),  # given twice, spoken twice
        ([[2, 3, 4, 4]], [1, 2, 3, 4], 0),  # only begun
    ],
)
def test_overlaps(hints, tokens, counted):
    processor = HintLogitsProcessor(hints, 1.5, prompt_length=0)
    answer = [*tokens, EOS]
    prefixes = [torch.tensor([answer[:step]], dtype=torch.long) for step in range(len(answer))]
    total = sum(
        processor(prefix, torch.zeros(1, VOCAB_SIZE))[0, token].item()
        for prefix, token in zip(prefixes, answer, strict=True)
    )
    assert total == 1.5 * counted == 1.5 * len(covered(tokens, hints))


def model_and_inputs(text, recordings=1):
    model = tiny_model("wavlm", text, seed=3)
    processor = tiny_processor(model, "wavlm", text)
    audio = [{"array": noise(0.2 + 0.1 * seed, seed), "sampling_rate": 16_000} for seed in range(recordings)]
    return model, processor(text=["what is said ?"] * recordings, audio=audio)


def answer_log_probs(model, inputs, answers):
    """`(answers, length, vocab)`: log-probabilities at each position of `answers` `(answers, length)`."""
    embedded = super(type(model), model).forward(**inputs, return_dict=True)
    count = len(answers)
    embeds = embedded.inputs_embeds.expand(count, -1, -1)
    mask = embedded.attention_mask.expand(count, -1)
    if model.config.is_encoder_decoder:
        start = torch.full((count, 1), model.config.text_config.decoder_start_token_id)
        logits = model.language_model(
            inputs_embeds=embeds, attention_mask=mask, decoder_input_ids=torch.cat([start, answers[:, :-1]], 1)
        ).logits
    else:
        embeds = torch.cat([embeds, model.get_input_embeddings()(answers[:, :-1])], 1)
        logits = model.language_model(inputs_embeds=embeds).logits[:, -answers.shape[1] :]
    return logits.log_softmax(-1)


@every_llm
@pytest.mark.parametrize(
    "hints, bonus, changes_the_best",
    [
        ([[6, 7, 8], [7, 8], [8, 8, 6, 7], [7, 7]], 4.5, True),
        ([[6, 7, 8, 6], [8, 6], [6, 6]], 3.9, True),
        ([[7] * 6, [6, 8] * 3, [8] * 9], 20.0, False),  # longer than any answer: only ever begun
        ([[7], [8], [6, 8, 7]], -2.0, False),
    ],
)
@torch.no_grad()
def test_widest_beams_find_the_best_answer_of_all(text, hints, bonus, changes_the_best):
    model, inputs = model_and_inputs(text)
    eos = model.config.eos_token_id
    letters, steps = [6, 7, 8], 5

    answers = [
        (*body, eos) for length in range(steps) for body in itertools.product(letters, repeat=length)
    ]  # ended by EOS
    answers += itertools.product(letters, repeat=steps)  # and cut before it
    padded = torch.tensor([[*answer, *[eos] * (steps - len(answer))] for answer in answers])
    log_probs = answer_log_probs(model, inputs, padded).gather(-1, padded[..., None])[..., 0].tolist()
    plain = {answer: sum(row[: len(answer)]) for answer, row in zip(answers, log_probs, strict=True)}
    biased = {answer: plain[answer] + bonus * len(covered(answer, hints)) for answer in answers}
    best = max(biased, key=biased.get)
    assert (best != max(plain, key=plain.get)) == changes_the_best

    beams = 3 ** (steps - 1) * 2
    output = model.generate(
        **inputs,
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=steps,
        length_penalty=0.0,
        suppress_tokens=[token for token in range(32) if token not in [*letters, eos]],
        logits_processor=[
            HintLogitsProcessor(hints, bonus, PROMPT_LENGTH[text], eos_token_id=eos, max_new_tokens=steps)
        ],
        return_dict_in_generate=True,
        output_scores=True,
    )
    found = []
    for row, score in zip(output.sequences.tolist(), output.sequences_scores.tolist(), strict=True):
        row = row[PROMPT_LENGTH[text] :]
        answer = (*until_eos(row, eos), *([eos] if eos in row else []))
        if score < -1e6:
            continue  # a place that no answer filled
        found.append(answer)
        assert math.isclose(score, biased[answer], abs_tol=1e-3)
    assert found[0] == best
    assert len(found) == len(set(found)) > 100


@every_llm
@pytest.mark.parametrize("options", [{"do_sample": False}, {"do_sample": True, "num_return_sequences": 3, "top_k": 0}])
def test_greedy_and_sampled_answers_gain_exactly_their_bonus(text, options):
    model, inputs = model_and_inputs(text, recordings=3)
    eos, prompt, steps = model.config.eos_token_id, PROMPT_LENGTH[text], 12
    hints_of_rows = [[[6, 7, 8], [8, 9]], None, [[token, other] for token in range(5, 12) for other in range(5, 12)]]
    processor = HintLogitsProcessor(hints_of_rows, 4.0, prompt, eos_token_id=eos, max_new_tokens=steps)
    torch.manual_seed(0)
    output = model.generate(
        **inputs,
        **options,
        max_new_tokens=steps,
        logits_processor=[processor],
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )
    answers = output.sequences[:, prompt:]
    gains = torch.stack(output.scores, 1) - torch.stack(output.logits, 1)
    gained = gains.gather(-1, answers[..., None])[..., 0].sum(-1).tolist()
    counts = []
    for row, answer in enumerate(answers.tolist()):
        hints = hints_of_rows[row // (len(answers) // 3)] or []
        counts.append(len(covered(until_eos(answer, eos), hints)))
        assert math.isclose(gained[row], 4.0 * counts[-1], abs_tol=1e-3)
    assert max(counts) > 2


@every_llm
@pytest.mark.parametrize("num_beams", [1, 4])
def test_each_row_of_a_batch_has_its_own_hints(text, num_beams):
    model, inputs = model_and_inputs(text, recordings=3)
    hints_of_rows = [[[6, 7, 8], [9]], [], [[20, 21], [21, 22, 23]]]
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "num_beams": num_beams, "do_sample": False}

    def answers(hints, **inputs):
        processor = HintLogitsProcessor(hints, 6.0, PROMPT_LENGTH[text], eos_token_id=model.config.eos_token_id)
        return model.generate(**inputs, **options, logits_processor=[processor]).tolist()

    together = answers(hints_of_rows, **inputs)
    assert together[1] == model.generate(**inputs, **options)[1].tolist()
    assert together != model.generate(**inputs, **options).tolist()
    for row, hints in enumerate(hints_of_rows):
        shared = answers(hints, **inputs)  # the same hints for all: the row's answer is the same
        assert shared[row] == together[row]


def test_processor_remembers_nothing_between_calls_that_it_needs():
    hints = [[1, 2, 3], [2, 3, 1]]
    kept = HintLogitsProcessor(hints, 1.0, prompt_length=0)
    for tokens in ([1, 2], [3, 2, 3], [], [2, 3], [1, 2, 3, 1]):
        input_ids = torch.tensor([tokens], dtype=torch.long)
        scores = torch.zeros(1, VOCAB_SIZE)
        fresh = HintLogitsProcessor(hints, 1.0, prompt_length=0)
        assert torch.equal(kept(input_ids, scores), fresh(input_ids, scores))
        assert not scores.any()  # whose owner still needs them


def test_impossible_tokens_stay_impossible_and_no_hints_change_nothing():
    scores = torch.randn(2, VOCAB_SIZE)
    scores[:, 2] = -torch.inf
    input_ids = torch.tensor([[1], [2]])
    biased = HintLogitsProcessor([[1, 2], [2]], 3.0, prompt_length=0)(input_ids, scores)
    assert torch.equal(biased == -torch.inf, scores == -torch.inf)
    for hints in ([], [None, []]):
        assert torch.equal(HintLogitsProcessor(hints, 3.0, prompt_length=0)(input_ids, scores), scores)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"hint_ids": [[1], []]}, ValueError, "no tokens"),
        ({"hint_ids": [[]]}, ValueError, "no tokens"),
        ({"hint_ids": [[[1], []], None]}, ValueError, "no tokens"),
        ({"hint_ids": [[1, -2]]}, ValueError, r"\[1, -2\] holds a negative"),
        ({"hint_ids": [[3, EOS]], "eos_token_id": [4, EOS]}, ValueError, "add_special_tokens=False"),
        ({"hint_ids": ["Anna"]}, TypeError, "token ids"),
        ({"hint_ids": [1, 2]}, TypeError, "token ids"),
        ({"hint_ids": [[1.0]]}, TypeError, "token ids"),
        ({"bonus": math.nan}, ValueError, "finite"),
        ({"bonus": math.inf}, ValueError, "finite"),
        ({"bonus": "2"}, TypeError, "number"),
        ({"prompt_length": -1}, ValueError, "prompt_length"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens"),
    ],
)
def test_bad_input_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        HintLogitsProcessor(**{"hint_ids": [[1]], "bonus": 1.0, "prompt_length": 0, **arguments})


@pytest.mark.parametrize(
    "hints, rows, prompt_length, words",
    [
        ([[1, VOCAB_SIZE]], 2, 0, "token 5, outside the LLM's vocabulary of 5"),
        ([[[1]], [[2]]], 3, 0, "2 rows, which do not fit the 3"),
        ([[1]], 2, 4, "prompt_length is 4"),
    ],
)
def test_hints_that_do_not_fit_the_decoding_are_refused(hints, rows, prompt_length, words):
    processor = HintLogitsProcessor(hints, 1.0, prompt_length)
    with pytest.raises(ValueError, match=words):
        processor(torch.ones(rows, 3, dtype=torch.long), torch.zeros(rows, VOCAB_SIZE))
