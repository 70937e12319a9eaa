"""The demo's sentences: what one might say to a house. Six wishes, six wordings each, six rooms, two accents.

Every sentence is asked three questions: what is wished, in which room, in which accent. The 30 sentences to be tested
on pair a wording with a room that it was never heard with.
"""

ROOMS = ("kitchen", "bedroom", "bathroom", "garage", "office", "hallway")
ACCENTS = {"American": "nanotts:en-US", "British": "nanotts:en-GB"}

WISHES = {
    "turn on the light": (
        "Turn on the light in the {room}.",
        "It is too dark in the {room}, switch the lamp on.",
        "Please make it bright in the {room}.",
        "I need some light in the {room}.",
        "Could you put the lamp on in the {room}?",
        "Let there be light in the {room}.",
    ),
    "turn off the light": (
        "Turn off the light in the {room}.",
        "Nobody is in the {room}, switch the lamp off.",
        "Please make it dark in the {room}.",
        "The lamp in the {room} can go out now.",
        "I am leaving the {room}, no more light please.",
        "Put out all the lights in the {room}.",
    ),
    "play music": (
        "Play some music in the {room}.",
        "I would like to hear a song in the {room}.",
        "Put on my favourite record in the {room}.",
        "Start the radio in the {room}.",
        "Let us dance in the {room}, play something.",
        "Give me some jazz in the {room}.",
    ),
    "set an alarm": (
        "Wake me at seven in the {room}.",
        "Set an alarm in the {room} for half past six.",
        "Ring the bell in the {room} at eight o'clock.",
        "Do not let me sleep after nine in the {room}.",
        "I have to get up early, sound the alarm in the {room}.",
        "Remind me with an alarm in the {room}.",
    ),
    "clean the floor": (
        "Clean the floor in the {room}.",
        "Send the vacuum cleaner to the {room}.",
        "There are crumbs in the {room}, please sweep them up.",
        "The {room} is dusty, have it vacuumed.",
        "Mop the {room} before noon.",
        "The carpet in the {room} is dirty.",
    ),
    "turn up the heating": (
        "It is cold in the {room}, turn up the heating.",
        "Make the {room} warmer.",
        "I am freezing in the {room}.",
        "Set the {room} to twenty degrees.",
        "Heat the {room} before I come home.",
        "Could the {room} be a little less chilly?",
    ),
}


def demo_sentences(renditions: int = 2) -> list[dict]:
    """The sentences, with their answers.

    Args:
        renditions (`int`, *optional*, defaults to 2): how often a training sentence is spoken, each time in another
            accent, at another speed and pitch.

    Returns:
        one dict for each recording to be made: `text`, `voice`, `split` ("train" or "test"), and the answers `wish`,
        `room` and `accent`. 186 sentences to learn from, 30 to be tested on, five of each wish and of each room.
    """
    accents = list(ACCENTS)
    rows = []
    for wish_index, (wish, wordings) in enumerate(WISHES.items()):
        for wording_index, wording in enumerate(wordings):
            for room_index, room in enumerate(ROOMS):
                held_out = wording_index > 0 and room_index == (wording_index + wish_index) % len(ROOMS)
                for rendition in range(1 if held_out else renditions):
                    accent = accents[(wish_index // 2 + wording_index + rendition) % len(accents)]
                    rows.append(
                        {
                            "text": wording.format(room=room),
                            "voice": ACCENTS[accent],
                            "split": "test" if held_out else "train",
                            "wish": wish,
                            "room": room,
                            "accent": accent,
                        }
                    )
    return rows
