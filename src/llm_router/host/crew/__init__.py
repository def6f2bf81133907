"""What happens to one instance: checked, started, proved, watched, put to sleep, stopped, taken over."""
