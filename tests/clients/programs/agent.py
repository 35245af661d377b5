"""Ask an agent that has one tool."""

from agents import Agent, Runner, function_tool


@function_tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


agent = Agent(name="forecaster", model="gpt-4.1-mini", tools=[weather])
print(Runner.run_sync(agent, "hello").final_output)
