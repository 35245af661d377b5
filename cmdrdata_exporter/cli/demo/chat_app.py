"""A chat application. All it knows of metering is to say whom it serves."""

from openai import NotFoundError, OpenAI

from cmdrdata_exporter import customer_context

client = OpenAI()


def ask(question: str, model: str = "gpt-5-mini") -> str | None:
    """Answer a question in one piece."""
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}]
    )
    return answer.choices[0].message.content


with customer_context("acme", plan="pro"):
    # 1. A chat
    print("chat:", ask("Say hello to Acme in five words."))

    # 2. A stream
    print("stream: ", end="")
    for chunk in client.chat.completions.create(
        model="gpt-5-mini",
        messages=[{"role": "user", "content": "Count from one to five."}],
        stream=True,
        stream_options={"include_usage": True},
    ):
        for choice in chunk.choices:
            print(choice.delta.content or "", end="")
    print()

with customer_context("globex"):
    # 3. Embeddings
    vectors = client.embeddings.create(
        model="text-embedding-3-small", input=["a red bike", "a blue bike"]
    )
    print("embeddings:", len(vectors.data), "vectors")

    # 4. A chat again
    print("chat:", ask("Say hello to Globex in five words."))

    # 5. A failed chat
    try:
        ask("Is anybody there?", model="gpt-unknown")
    except NotFoundError as error:
        print("failed, as it should:", error.status_code, error.code)
