"""Networks from a recipe: built untrained, and initialised."""

from torch import nn

from licht.model.autoencoder import Autoencoder
from licht.model.text import TextTower
from licht.model.transformer import Flux2Transformer
from licht.model.variants import AutoencoderConfig, TextConfig, Tower, TowerConfig, TransformerConfig
from licht.training.config import Networks


def autoencoder_config(networks: Networks) -> AutoencoderConfig:
    """The autoencoder's sizes."""
    return AutoencoderConfig(
        channels=networks.vae_channels,
        decoder_channels=networks.vae_channels,
        num_res_blocks=networks.vae_blocks,
        z_channels=networks.z_channels,
        norm_groups=networks.vae_groups,
    )


def text_config(networks: Networks) -> TextConfig:
    """The text tower's sizes, and which of its hidden states are stacked."""
    tower = TowerConfig(
        tower=Tower.QWEN3,
        vocab_size=networks.vocab_size,
        hidden_size=networks.tower_size,
        intermediate_size=2 * networks.tower_size,
        num_layers=networks.tower_layers,
        num_attention_heads=networks.tower_heads,
        num_key_value_heads=networks.tower_kv_heads,
        head_dim=networks.tower_size // networks.tower_heads,
        rope_theta=10_000.0,
        rms_norm_eps=1e-6,
    )
    return TextConfig(tower, networks.text_layers, networks.text_length)


def transformer_config(networks: Networks, guidance_embed: bool) -> TransformerConfig:
    """The flow transformer's sizes."""
    head = networks.hidden_size // networks.heads
    return TransformerConfig(
        hidden_size=networks.hidden_size,
        num_heads=networks.heads,
        depth=networks.depth,
        depth_single_blocks=networks.depth_single,
        context_in_dim=text_config(networks).context_dim,
        guidance_embed=guidance_embed,
        in_channels=4 * networks.z_channels,
        axes_dim=(head // 4,) * 4,
    )


def initialise_transformer(transformer: Flux2Transformer) -> None:
    """Small normal weights; modulation and last layer start at zero, so that every block starts as the identity."""
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5 * 0.8)
    zeroed = (
        transformer.double_stream_modulation_img.lin,
        transformer.double_stream_modulation_txt.lin,
        transformer.single_stream_modulation.lin,
        transformer.final_layer.linear,
        transformer.final_layer.adaLN_modulation[1],
    )
    for layer in zeroed:
        nn.init.zeros_(layer.weight)  # type: ignore[arg-type]


def initialise_tower(tower: TextTower) -> None:
    """Small normal weights; the ways back into the residual stream are scaled down with the depth."""
    for name, parameter in tower.named_parameters():
        if parameter.ndim == 2:
            scale = (2 * len(tower.layers)) ** -0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
            nn.init.normal_(parameter, std=0.02 if "embed" in name else scale * parameter.shape[1] ** -0.5)


def initialise_autoencoder(autoencoder: Autoencoder) -> None:
    """Torch's own initialisation serves the convolutions; residual branches start small."""
    for name, parameter in autoencoder.named_parameters():
        if name.endswith(("conv2.weight", "proj_out.weight")):
            parameter.data.mul_(0.3)
