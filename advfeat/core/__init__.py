"""What every room stands on: checks of arguments, random streams, files, balls of perturbations, objectives."""
