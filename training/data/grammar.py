"""Spoken commands from a grammar of our own, with their German and French renderings: texts that anybody may use.

    python training/data/grammar.py --out commands.jsonl [--sentences 400] [--seed 0]
    python training/data/synthesize.py commands.jsonl --out $SPEECHVERSE_DATA/spoken/commands

After these two, `corpus: commands` finds its recordings. One JSON object a line: `text`, `split`, `intent`, `slots`,
`domain`, `de`, `fr`, and `sentence`, a number. No sentence is in two splits; the intents in `UNSEEN_INTENTS` are in the split
test alone. What is drawn is a function of the seed.
"""

import argparse
import itertools
import json
import math
import random
import re
from collections import Counter
from pathlib import Path


if __package__:
    from .whole_files import write_whole
else:  # beside a script
    from whole_files import write_whole


# Slot -> what may fill it: (value, English, German, French). The value is the part of the English that the slot names; the
# renderings bring the preposition that they need, so that a template fits all of them.
SLOTS = {
    "genre": [
        (name, name, de, fr)
        for name, de, fr in (
            ("jazz", "Jazz", "du jazz"),
            ("rock", "Rock", "du rock"),
            ("folk", "Folk", "du folk"),
            ("soul", "Soul", "de la soul"),
            ("techno", "Techno", "de la techno"),
            ("reggae", "Reggae", "du reggae"),
            ("opera", "Opernmusik", "de l'opéra"),
            ("piano music", "Klaviermusik", "du piano"),
            ("country music", "Countrymusik", "de la country"),
            ("dance music", "Tanzmusik", "de la musique de danse"),
        )
    ],
    "room": [
        (name, f"in the {name}", de, fr)
        for name, de, fr in (
            ("kitchen", "in der Küche", "dans la cuisine"),
            ("bedroom", "im Schlafzimmer", "dans la chambre"),
            ("bathroom", "im Badezimmer", "dans la salle de bains"),
            ("garage", "in der Garage", "dans le garage"),
            ("office", "im Büro", "dans le bureau"),
            ("hallway", "im Flur", "dans le couloir"),
            ("living room", "im Wohnzimmer", "dans le salon"),
            ("cellar", "im Keller", "dans la cave"),
            ("dining room", "im Esszimmer", "dans la salle à manger"),
            ("garden", "im Garten", "dans le jardin"),
        )
    ],
    "lamp": [
        (name, f"the {name}", de, fr)
        for name, de, fr in (
            ("light", "das Licht", "la lumière"),
            ("floor lamp", "die Stehlampe", "le lampadaire"),
            ("desk lamp", "die Schreibtischlampe", "la lampe de bureau"),
            ("ceiling light", "die Deckenlampe", "le plafonnier"),
            ("small lamp", "die kleine Lampe", "la petite lampe"),
        )
    ],
    "colour": [
        ("red", "red", "rot", "en rouge"),
        ("blue", "blue", "blau", "en bleu"),
        ("green", "green", "grün", "en vert"),
        ("yellow", "yellow", "gelb", "en jaune"),
        ("purple", "purple", "lila", "en violet"),
        ("orange", "orange", "orange", "en orange"),
    ],
    "time": [
        (name, f"at {name}", f"um {de}", f"à {fr}")
        for name, de, fr in (
            ("five o'clock", "fünf Uhr", "cinq heures"),
            ("half past five", "halb sechs", "cinq heures et demie"),
            ("six o'clock", "sechs Uhr", "six heures"),
            ("a quarter past six", "Viertel nach sechs", "six heures et quart"),
            ("seven o'clock", "sieben Uhr", "sept heures"),
            ("half past seven", "halb acht", "sept heures et demie"),
            ("eight o'clock", "acht Uhr", "huit heures"),
            ("a quarter to nine", "Viertel vor neun", "neuf heures moins le quart"),
            ("nine o'clock", "neun Uhr", "neuf heures"),
            ("half past ten", "halb elf", "dix heures et demie"),
        )
    ],
    "day": [
        ("today", "today", "heute", "aujourd'hui"),
        ("tomorrow", "tomorrow", "morgen", "demain"),
        *(
            (name, f"on {name}", f"am {de}", fr)
            for name, de, fr in (
                ("Monday", "Montag", "lundi"),
                ("Tuesday", "Dienstag", "mardi"),
                ("Wednesday", "Mittwoch", "mercredi"),
                ("Thursday", "Donnerstag", "jeudi"),
                ("Friday", "Freitag", "vendredi"),
                ("Saturday", "Samstag", "samedi"),
                ("Sunday", "Sonntag", "dimanche"),
            )
        ),
    ],
    "city": [
        (name, f"in {name}", f"in {de}", f"à {fr}")
        for name, de, fr in (
            ("Berlin", "Berlin", "Berlin"),
            ("Paris", "Paris", "Paris"),
            ("London", "London", "Londres"),
            ("Vienna", "Wien", "Vienne"),
            ("Geneva", "Genf", "Genève"),
            ("Rome", "Rom", "Rome"),
            ("Lisbon", "Lissabon", "Lisbonne"),
            ("Dublin", "Dublin", "Dublin"),
            ("Boston", "Boston", "Boston"),
            ("Chicago", "Chicago", "Chicago"),
            ("Toronto", "Toronto", "Toronto"),
            ("Sydney", "Sydney", "Sydney"),
        )
    ],
    "event": [
        (name, f"a {name}", de, fr)
        for name, de, fr in (
            ("meeting", "ein Treffen", "une réunion"),
            ("lunch", "ein Mittagessen", "un déjeuner"),
            ("dinner", "ein Abendessen", "un dîner"),
            ("concert", "ein Konzert", "un concert"),
            ("piano lesson", "eine Klavierstunde", "une leçon de piano"),
            ("phone call", "ein Telefonat", "un appel"),
            ("walk", "einen Spaziergang", "une promenade"),
            ("tennis match", "ein Tennisspiel", "un match de tennis"),
        )
    ],
    "person": [
        (name, f"with {name}", f"mit {name}", f"avec {name}")
        for name in ("Anna", "Peter", "Maria", "Thomas", "Laura", "Martin", "Julia", "David", "Clara", "Simon")
    ],
    "item": [
        (name, name, de, fr)
        for name, de, fr in (
            ("milk", "Milch", "du lait"),
            ("bread", "Brot", "du pain"),
            ("butter", "Butter", "du beurre"),
            ("coffee", "Kaffee", "du café"),
            ("rice", "Reis", "du riz"),
            ("cheese", "Käse", "du fromage"),
            ("honey", "Honig", "du miel"),
            ("soap", "Seife", "du savon"),
            ("salt", "Salz", "du sel"),
            ("flour", "Mehl", "de la farine"),
            ("olive oil", "Olivenöl", "de l'huile d'olive"),
            ("orange juice", "Orangensaft", "du jus d'orange"),
            ("toothpaste", "Zahnpasta", "du dentifrice"),
            ("cat food", "Katzenfutter", "de la nourriture pour chat"),
        )
    ],
    "list": [
        (name, f"the {name} list", de, fr)
        for name, de, fr in (
            ("shopping", "Einkaufsliste", "la liste de courses"),
            ("party", "Partyliste", "la liste de la fête"),
            ("holiday", "Urlaubsliste", "la liste des vacances"),
            ("breakfast", "Frühstücksliste", "la liste du petit déjeuner"),
        )
    ],
    "person_asked": [
        (name, name, name, name) for name in ("Anna", "Peter", "Maria", "Thomas", "Laura", "Martin", "Julia", "David")
    ],
}
SLOT_LABELS = {"person_asked": "person"}  # another rendering of the same slot

# Domain -> intent -> templates in English, German and French.
COMMANDS = {
    "music": {
        "start_music": [
            ("Play some {genre} {room}.", "Spiel etwas {genre} {room}.", "Mets {genre} {room}."),
            (
                "I would like to hear {genre} {room}.",
                "Ich möchte {room} {genre} hören.",
                "J'aimerais écouter {genre} {room}.",
            ),
            ("Put on {genre} {room}, please.", "Mach bitte {genre} {room} an.", "Mets {genre} {room}, s'il te plaît."),
        ],
        "stop_music": [
            ("Stop the music {room} {time}.", "Stopp die Musik {room} {time}.", "Arrête la musique {room} {time}."),
            ("No more {genre} {room}.", "Schluss mit {genre} {room}.", "Arrête de jouer {genre} {room}."),
            ("Silence {room} {time}, please.", "Bitte Ruhe {room} {time}.", "Silence {room} {time}, s'il te plaît."),
        ],
    },
    "lights": {
        "switch_on_light": [
            ("Switch on {lamp} {room}.", "Schalte {lamp} {room} ein.", "Allume {lamp} {room}."),
            ("I need {lamp} {room}.", "Ich brauche {lamp} {room}.", "Il me faut {lamp} {room}."),
            ("Turn {lamp} on {room} {time}.", "Mach {lamp} {room} {time} an.", "Allume {lamp} {room} {time}."),
        ],
        "switch_off_light": [
            ("Switch off {lamp} {room}.", "Schalte {lamp} {room} aus.", "Éteins {lamp} {room}."),
            ("Turn {lamp} off {room} {time}.", "Mach {lamp} {room} {time} aus.", "Éteins {lamp} {room} {time}."),
            ("Nobody uses {lamp} {room}.", "Niemand benutzt {lamp} {room}.", "Personne n'utilise {lamp} {room}."),
        ],
        "colour_light": [
            ("Make {lamp} {room} {colour}.", "Mach {lamp} {room} {colour}.", "Mets {lamp} {room} {colour}."),
            (
                "I want {lamp} {room} to be {colour}.",
                "Ich will {lamp} {room} {colour} haben.",
                "Je veux {lamp} {room} {colour}.",
            ),
        ],
    },
    "alarms": {
        "wake_up": [
            ("Wake me {time} {day}.", "Weck mich {day} {time}.", "Réveille-moi {day} {time}."),
            ("Set an alarm {day} {time}.", "Stell einen Wecker {day} {time}.", "Mets un réveil {day} {time}."),
            ("I have to get up {time} {day}.", "Ich muss {day} {time} aufstehen.", "Je dois me lever {day} {time}."),
        ],
        "drop_alarm": [
            ("Delete the alarm {day} {time}.", "Lösch den Wecker {day} {time}.", "Supprime le réveil {day} {time}."),
            (
                "I do not need the alarm {time} {day}.",
                "Ich brauche {day} {time} keinen Wecker.",
                "Je n'ai pas besoin du réveil {day} {time}.",
            ),
        ],
    },
    "weather": {
        "ask_forecast": [
            (
                "What is the weather like {city} {day}?",
                "Wie ist das Wetter {city} {day}?",
                "Quel temps fait-il {city} {day} ?",
            ),
            (
                "Give me the forecast {city} {day}.",
                "Gib mir die Vorhersage {city} {day}.",
                "Donne-moi la météo {city} {day}.",
            ),
        ],
        "ask_rain": [
            ("Will it rain {city} {day}?", "Regnet es {city} {day}?", "Va-t-il pleuvoir {city} {day} ?"),
            (
                "Do I need an umbrella {city} {day}?",
                "Brauche ich {city} {day} einen Regenschirm?",
                "Ai-je besoin d'un parapluie {city} {day} ?",
            ),
        ],
        "ask_temperature": [
            (
                "How warm will it be {city} {day}?",
                "Wie warm wird es {city} {day}?",
                "Quelle température fera-t-il {city} {day} ?",
            ),
            (
                "Tell me the temperature {city} {time}.",
                "Sag mir die Temperatur {city} {time}.",
                "Dis-moi la température {city} {time}.",
            ),
        ],
    },
    "calendar": {
        "add_appointment": [
            ("Plan {event} {person} {day}.", "Plane {event} {person} {day}.", "Prévois {event} {person} {day}."),
            (
                "I have {event} {person} {day} {time}.",
                "Ich habe {event} {person} {day} {time}.",
                "J'ai {event} {person} {day} {time}.",
            ),
            ("Write down {event} {day} {time}.", "Notiere {event} {day} {time}.", "Note {event} {day} {time}."),
        ],
        "ask_agenda": [
            ("What are my plans {day} {time}?", "Was habe ich {day} {time} vor?", "Qu'ai-je de prévu {day} {time} ?"),
            ("Am I free {day} {time}?", "Habe ich {day} {time} Zeit?", "Suis-je libre {day} {time} ?"),
            ("What do I do {person} {day}?", "Was mache ich {day} {person}?", "Que fais-je {day} {person} ?"),
        ],
        "call_off": [
            ("Cancel everything {person} {day}.", "Sag alles {person} {day} ab.", "Annule tout {person} {day}."),
            (
                "I can not come {day}, tell {person_asked}.",
                "Ich kann {day} nicht kommen, sag es {person_asked}.",
                "Je ne peux pas venir {day}, dis-le à {person_asked}.",
            ),
        ],
    },
    "shopping": {
        "add_item": [
            ("Put {item} on {list}.", "Setz {item} auf die {list}.", "Ajoute {item} sur {list}."),
            (
                "We are out of {item}, add it to {list}.",
                "{item} fehlt, bitte auf die {list} setzen.",
                "Il manque {item}, note cela sur {list}.",
            ),
        ],
        "remove_item": [
            ("Take {item} off {list}.", "Nimm {item} von der {list}.", "Enlève {item} de {list}."),
            (
                "We already have {item}, strike it from {list}.",
                "Wir haben schon {item}, bitte von der {list} streichen.",
                "Nous avons déjà {item}, raye cela de {list}.",
            ),
        ],
        "order_item": [
            (
                "Order {item} for {person_asked}.",
                "Bestell {item} für {person_asked}.",
                "Commande {item} pour {person_asked}.",
            ),
            (
                "Have {item} delivered {day} {time}.",
                "Lass {day} {time} {item} liefern.",
                "Fais livrer {item} {day} {time}.",
            ),
        ],
    },
}

UNSEEN_INTENTS = ("colour_light", "call_off", "order_item")
SHARES = {"validation": 0.1, "test": 0.1}  # of the sentences of an intent that is trained on
UNSEEN_SHARE = 0.3  # as many of an intent that is not, beside those of one that is


def make_sentences(count: int = 400, seed: int = 0) -> list[dict]:
    """
    Draws sentences from the grammar.

    Args:
        count (`int`, *optional*, defaults to 400): About how many; every intent gets its share, as far as it goes.
        seed (`int`, *optional*, defaults to 0): Seed of the draws.

    Returns:
        rows with `sentence`, `text`, `split`, `intent`, `slots` (`[{"label", "value"}]`), `domain`, `de` and `fr`.

    Raises:
        ValueError: If `count` leaves an intent without a sentence in a split.
    """
    intents = [(domain, intent) for domain, intents in COMMANDS.items() for intent in intents]
    share = count / (len(intents) - (1 - UNSEEN_SHARE) * len(UNSEEN_INTENTS))
    if share < 3:
        raise ValueError(f"`count` is {count}: give {math.ceil(3 * count / share)} or more, 3 an intent.")
    rows = []
    for domain, intent in intents:
        unseen = intent in UNSEEN_INTENTS
        draw = random.Random(f"{seed} {intent}")
        drawn = _draw(domain, intent, max(3, round(share * (UNSEEN_SHARE if unseen else 1))), draw)
        if unseen:
            splits = ["test"] * len(drawn)
        else:
            splits = [split for split, part in SHARES.items() for _ in range(max(1, round(part * len(drawn))))]
            splits += ["train"] * (len(drawn) - len(splits))
        rows += [row | {"split": split} for row, split in zip(drawn, splits, strict=True)]
    random.Random(seed).shuffle(rows)
    return [{"sentence": f"command-{index:05d}"} | row for index, row in enumerate(rows)]


def _draw(domain: str, intent: str, count: int, draw: random.Random) -> list[dict]:
    """Different sentences of an intent, of every template alike, in a drawn order."""
    pools = []
    for template in COMMANDS[domain][intent]:
        names = re.findall(r"{(\w+)}", template[0])
        fillings = list(itertools.product(*(SLOTS[name] for name in names)))
        pools.append([(template, names, filling) for filling in draw.sample(fillings, min(count, len(fillings)))])
    in_turn = [one for turn in itertools.zip_longest(*pools) for one in turn if one is not None][:count]
    draw.shuffle(in_turn)
    return [_fill(*one) | {"intent": intent, "domain": domain} for one in in_turn]


def _fill(template: tuple[str, str, str], names: list[str], filling: tuple) -> dict:
    texts = [
        _capitalised(wording.format(**{name: filler[place] for name, filler in zip(names, filling, strict=True)}))
        for place, wording in enumerate(template, start=1)
    ]
    slots = [
        {"label": SLOT_LABELS.get(name, name), "value": filler[0]} for name, filler in zip(names, filling, strict=True)
    ]
    return {"text": texts[0], "slots": slots, "de": texts[1], "fr": texts[2]}


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def write_sentences(file: str | Path, count: int = 400, seed: int = 0) -> list[dict]:
    """Writes what [`make_sentences`] draws, one JSON object a line, and returns it."""
    rows = make_sentences(count, seed)
    write_whole(Path(file), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSONL file to write")
    parser.add_argument("--sentences", type=int, default=400, metavar="N", help="about how many (default: 400)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    options = parser.parse_args()
    try:
        rows = write_sentences(options.out, options.sentences, options.seed)
    except (OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    counts = Counter(row["split"] for row in rows)
    print(f"{options.out}: {', '.join(f'{count} of {split}' for split, count in sorted(counts.items()))}")


if __name__ == "__main__":
    main()
