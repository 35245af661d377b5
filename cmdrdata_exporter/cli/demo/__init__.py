"""`cmdrdata demo`: a small application, the stand-ins that it runs against, and what is shown of it."""
