"""What lives, what goes, and why: survey, plan, sweep, and the answers drawn from them."""
