"""Lightning's Trainer on the CPU, which writes no files and shows no progress."""

from lightning.pytorch import Trainer


def quiet_trainer(folder, epochs, **options):
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
