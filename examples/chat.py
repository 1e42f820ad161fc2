"""A conversation about your own notes: sources below each answer, and questions that refer back.

    python examples/chat.py

It uses the packaged model. `MemoryModel.open("my.bank")` talks about a bank that is there.
"""

from __future__ import annotations

from latentbank import ChatAnswer, Document, MemoryModel

NOTES = [
    Document(
        "Mara Holt repairs the lighthouse of Holm in spring. In winter she lives in Ostrava and "
        "teaches chess.",
        id="people",
        time="2023-01-01",
    ),
    Document(
        "The brass lamp of the lighthouse was made by Otto Keller in 1911. It weighs 300 "
        "kilograms.",
        id="lamp",
        source="lamp.txt",
    ),
    Document("The canteen of the harbour closes at four. Soup costs 3 euros.", id="canteen"),
]
QUESTIONS = (
    "Who repairs the lighthouse?",
    "Where does she live in winter?",
    "And who made the brass lamp?",
    "What does Mara do in spring, and what does soup cost?",
)


def main() -> list[ChatAnswer]:
    """Asks each question with the conversation before it; prints the answers as they come."""
    answers, messages = [], []
    with MemoryModel.from_pretrained(quick=True) as model:
        model.write(NOTES)
        for question in QUESTIONS:
            messages.append({"role": "user", "content": question})
            print(f"\nyou: {question}\nbank: ", end="")
            stream = model.chat(messages, stream=True)
            for piece in stream:
                print(piece, end="", flush=True)
            answer = stream.answer
            assert answer is not None
            print()
            for one in answer.citations:
                print(f"  [{one.number}] {one.source or one.id}: {one.snippet}")
            messages.append({"role": "assistant", "content": answer.text})
            answers.append(answer)
    return answers


if __name__ == "__main__":
    main()
