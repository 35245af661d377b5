"""`cmdrdata reconcile`: what was recorded here beside what the provider counts."""
