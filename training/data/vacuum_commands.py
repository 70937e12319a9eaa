"""What people say to a robot vacuum cleaner: sentences of our own, which teach a model a set of labels that it never saw.

The labels are those of `training/configs/tasks/vacuum.yaml`. Every sentence of training is spoken by every voice; those of the
test are others, each spoken by one voice.
"""

from collections.abc import Sequence


# Label -> sentences to train on, sentences to test with.
SENTENCES = {
    "clean": (
        (
            "Vacuum the living room.",
            "Please start cleaning now.",
            "Clean the kitchen floor.",
            "There are crumbs under the table, get them.",
            "Start vacuuming the bedroom.",
            "The carpet is dirty, clean it.",
            "Clean the whole flat.",
            "Sweep the hallway, please.",
            "You can begin with the bathroom.",
            "Vacuum under the sofa.",
            "I spilled rice on the floor, clean it up.",
            "Do the floor in the office.",
        ),
        (
            "Vacuum the hallway, please.",
            "Start cleaning the living room.",
            "The kitchen is dirty, clean it.",
            "Clean the floor under the table.",
        ),
    ),
    "pause": (
        (
            "Pause for a moment.",
            "Stop for a minute, please.",
            "Please wait, I am on the phone.",
            "Take a break.",
            "Hold on a second.",
            "Stop right there and wait.",
            "Be quiet for a while.",
            "Wait until I say go.",
            "Pause the cleaning.",
            "Stop now, the baby sleeps.",
            "Please stop, you are too loud.",
            "Stand still for five minutes.",
        ),
        (
            "Please pause the cleaning.",
            "Wait for a minute.",
            "Stop, I am on the phone.",
            "Take a short break, please.",
        ),
    ),
    "dock": (
        (
            "Go back to your charger.",
            "Return to the dock.",
            "Drive home, please.",
            "Go home and charge.",
            "Go to the charging station.",
            "You are done, go back to your place.",
            "Return to your station.",
            "Go and charge yourself.",
            "Drive back to the dock, please.",
            "That is enough, go home.",
            "Back to your charger, please.",
            "Please return to the charging station.",
        ),
        (
            "Please go back to the dock.",
            "Drive to your charging station.",
            "Go home, please.",
            "Return to your charger.",
        ),
    ),
    "empty": (
        (
            "Empty your dust bin.",
            "Your bin is full, empty it.",
            "Throw the dust away.",
            "Please empty the dust bag.",
            "Get rid of the dirt in your bin.",
            "Empty the container.",
            "The dust bag is full, empty it, please.",
            "Empty yourself, please.",
            "Drop the dust into the big bin.",
            "Please empty your container.",
            "Your dust bag has to be emptied.",
            "Throw out all the dirt that you have.",
        ),
        (
            "Please empty your bin.",
            "Your container is full, empty it.",
            "Empty the dust bag now.",
            "Throw away the dirt in your bin.",
        ),
    ),
    "battery": (
        (
            "How much battery is left?",
            "How full is your battery?",
            "Is your battery low?",
            "Tell me the battery level.",
            "How much power do you have?",
            "What is your battery at?",
            "Do you have enough power left?",
            "How long does your battery last?",
            "How many percent of battery do you have?",
            "Tell me how much power is left.",
            "Is the battery full?",
            "What is the charge of your battery?",
        ),
        (
            "What is your battery level?",
            "How much power is left?",
            "Is your battery full?",
            "Tell me how full the battery is.",
        ),
    ),
    "locate": (
        (
            "Where are you?",
            "In which room are you now?",
            "I cannot find you, where are you?",
            "Where is the robot?",
            "Tell me where you are.",
            "Which room are you in?",
            "Where did you go?",
            "Make a sound so that I find you.",
            "Are you under the sofa or under the bed?",
            "I do not see you, where are you hiding?",
            "Say where you are, please.",
            "Where is the vacuum cleaner now?",
        ),
        (
            "Where are you now?",
            "Tell me which room you are in.",
            "I cannot see you, where are you?",
            "Where did the robot go?",
        ),
    ),
}


def vacuum_sentences(voices: Sequence[str]) -> list[dict]:
    """
    The sentences as `synthesize` takes them.

    Args:
        voices (`list[str]`): Names of the voices, `engine:voice`.

    Returns:
        rows with `text`, `voice`, `split` ("train" or "test"), `task` ("vacuum") and `target`, the label.
    """
    train, test = [], []
    for label, (learned, unheard) in SENTENCES.items():
        row = {"task": "vacuum", "target": label}
        train += [row | {"text": text, "voice": voice, "split": "train"} for text in learned for voice in voices]
        test += [row | {"text": text, "split": "test"} for text in unheard]
    spoken_once = [row | {"voice": voices[place % len(voices)]} for place, row in enumerate(test)]
    return train + spoken_once
