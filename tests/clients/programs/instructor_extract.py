"""Extract a typed object from a sentence."""

import instructor
from openai import OpenAI
from pydantic import BaseModel


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


client = instructor.from_openai(OpenAI())
person = client.chat.completions.create(
    model="gpt-4.1-mini",
    response_model=Person,
    messages=[{"role": "user", "content": "hello"}],
)
print(person.name, person.age)
