"""What a distillation run is, as settings: the sections (`schema`) and how they are read (`load`)."""
