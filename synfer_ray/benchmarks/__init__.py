"""How fast the engine is, as ratios that hold on any machine: against a plain loop, and step against step."""
