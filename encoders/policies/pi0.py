"""pi0, driven by our code: the prefix layer by layer, with hooks for savings, then the denoising of a chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .base import Held, NoSaving, Prefix, Saving, SavingRun, Watch, without
from .layers import check_kind, finish, mask_for, project, shares
from .observation import Chunk, Observation

# Shapes: 1 robot, T tokens of the prefix, R rows computed in a layer, U slots a layer holds, C cameras, P visual tokens
# of a camera, N = C * P, D channels, S numbers of a state, A action steps, J numbers of an action, Q queries (the state
# and the A steps), E channels of the action expert, 3 colours, H rows, W columns.


@dataclass(frozen=True, slots=True, eq=False)
class ReadPrefix:
    """A prefix after its last layer. Made by `PI0Policy.read`, read by `PI0Policy.denoise`, written by nobody.

    held: what each layer holds. valid_T: bool, which tokens are not padding. position: where the state stands.
    """

    state_1S: Tensor
    held: tuple[Held, ...]
    rows_per_layer: tuple[int, ...]
    valid_T: Tensor
    image_N: Tensor
    grid_CP: tuple[int, int]
    position: int

    def __repr__(self) -> str:
        return f"ReadPrefix({self.valid_T.shape[0]} tokens, {self.rows_per_layer[-1]} of them in the last layer)"


class PolicyRun:
    """One episode: what its saving remembers. Made by `PI0Policy.start`. Not thread-safe: one per robot."""

    def __init__(self, saving: Saving) -> None:
        self.saving = saving
        self.state: SavingRun = saving.start()
        self.newest: ReadPrefix | None = None  # read, and not yet denoised

    def reset(self) -> None:
        """A new episode begins: nothing of the last one counts. The caller's to call."""
        self.newest = None
        self.state.reset()

    @property
    def num_bytes(self) -> int:
        """What is held for this episode."""
        return self.state.num_bytes


class PI0Policy:
    """A pi0 of transformers, weights and modules its own; the order of the work, masks and caches ours.

    Promises: with no saving, actions equal `PI0ForConditionalGeneration.sample_actions` to the bit; tokens that a
    saving drops keep nobody's place: all others stay at the positions that they have in the whole prefix, and so
    do state and actions after them. One robot at a time; not thread-safe.

    Paper: pi0: A Vision-Language-Action Flow Model for General Robot Control (arXiv 2410.24164)
    """

    def __init__(self, model: Any) -> None:
        """model: transformers' PI0ForConditionalGeneration, in eval mode. Raises ValueError for anything else."""
        kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        if kind != "pi0" or not hasattr(model, "embed_action_time"):
            raise ValueError(f"this drives transformers' PI0ForConditionalGeneration; got {kind!r}")
        if model.training:
            raise ValueError(f"a policy acts in eval mode; got a {type(model).__name__} in training; call eval()")
        self.model = model
        self._vlm, self._expert = model.model.vlm, model.model.dit
        self._layers, self._expert_layers = list(self._vlm.language_model.layers), list(self._expert.layers)
        if len(self._layers) != len(self._expert_layers):
            raise ValueError(
                f"expert and language half must have as many layers; got {len(self._expert_layers)} and "
                f"{len(self._layers)}"
            )
        self._kind, self._expert_kind = check_kind(self._vlm.language_model.config), check_kind(self._expert.config)
        self._image_id = int(model.config.vlm_config.image_token_id)
        vision = self._vlm.config.vision_config
        self.num_layers = len(self._layers)
        self.tokens_per_camera = (vision.image_size // vision.patch_size) ** 2
        self.num_steps = int(model.config.num_inference_steps)
        self.chunk_size = int(model.config.chunk_size)
        self.action_dim = int(model.config.max_action_dim)
        self.device: torch.device = model.action_out_proj.weight.device
        self.dtype: torch.dtype = model.action_out_proj.weight.dtype

    @torch.inference_mode()
    def see(self, pixels_C3HW: Tensor) -> Tensor:
        """All cameras' pictures through the whole tower: x_CPD."""
        seen: Tensor = self._vlm.get_image_features(pixels_C3HW).pooler_output
        return seen

    def start(self, saving: Saving | None = None) -> PolicyRun:
        """A new episode. None: nothing is saved."""
        return PolicyRun(saving or NoSaving())

    def act(
        self, run: PolicyRun, observation: Observation, *, noise_1AJ: Tensor | None = None, num_steps: int | None = None
    ) -> Chunk:
        """The next chunk of actions: `read`, then `denoise`."""
        return self.denoise(run, self.read(run, observation), noise_1AJ=noise_1AJ, num_steps=num_steps)

    @torch.inference_mode()
    def read(self, run: PolicyRun, observation: Observation) -> ReadPrefix:
        """The observation through the language half, less what the episode's saving leaves out.

        Raises ValueError where the prompt's placeholders are not as many as the visual tokens, and where a saving
        is asked to choose among tokens some of which are not there.
        """
        present_CP = observation.present_CP
        if present_CP is not None and bool(present_CP.all()):
            present_CP = None
        if present_CP is not None and not isinstance(run.saving, NoSaving):
            raise ValueError(
                f"{type(run.saving).__name__} chooses among whole grids; got an observation with tokens left out; "
                "take the feed without a budget, or no saving"
            )
        x_1TD, prefix, valid_T = self._embed(observation)
        run.newest = None
        alive_R = torch.arange(x_1TD.shape[1], device=self.device)
        if present_CP is not None:
            absent = prefix.image_N[~present_CP.flatten().to(self.device)]
            alive_R = without(alive_R, absent, x_1TD.shape[1])
        run.state.begin(prefix)
        try:
            is_masked = observation.mask_1T is not None
            held, rows = self._through_layers(run.state, prefix, x_1TD, alive_R, valid_T, is_masked)
        except BaseException:
            run.reset()
            raise
        grid_CP = (int(observation.x_CPD.shape[0]), int(observation.x_CPD.shape[1]))
        # As transformers counts: with a mask only what is not padding has a position.
        position = int(valid_T.sum()) if observation.mask_1T is not None else int(valid_T.shape[0])
        run.newest = ReadPrefix(observation.state_1S, held, rows, valid_T, prefix.image_N, grid_CP, position)
        return run.newest

    @torch.inference_mode()
    def denoise(
        self, run: PolicyRun, read: ReadPrefix, *, noise_1AJ: Tensor | None = None, num_steps: int | None = None
    ) -> Chunk:
        """A chunk of actions from noise, in `num_steps` steps of the flow; None: the checkpoint's, 10.

        noise_1AJ: where the flow starts; None: drawn here. Raises ValueError for a prefix that is not the run's newest:
        what a saving learns of one belongs to that one, once.
        """
        if read is not run.newest:
            raise ValueError(f"a run denoises the prefix that it read last, once; got {read!r}; call read again")
        steps = self.num_steps if num_steps is None else num_steps
        if steps < 1:
            raise ValueError(f"a chunk takes one denoising step or more; got {steps}")
        shape = (1, self.chunk_size, self.action_dim)
        if noise_1AJ is None:
            noise_1AJ = torch.randn(shape, dtype=self.dtype, device=self.device)
        if tuple(noise_1AJ.shape) != shape:
            raise ValueError(f"noise_1AJ must be {shape}; got {tuple(noise_1AJ.shape)}")
        try:
            actions_1AJ, looked_T = self._flow(run.state, read, noise_1AJ.to(self.device, self.dtype), steps)
            run.state.end()
            run.newest = None
        except BaseException:
            run.reset()
            raise
        looked_N = looked_T[read.image_N]
        looked_N = looked_N / looked_N.sum().clamp_min(1e-30)
        slots = tuple(int(one.slots_U.shape[0]) for one in read.held)
        return Chunk(actions_1AJ[0], looked_N.view(read.grid_CP), read.rows_per_layer, slots)

    def _embed(self, observation: Observation) -> tuple[Tensor, Prefix, Tensor]:
        ids_1T = observation.ids_1T.to(self.device)
        is_image_1T = ids_1T == self._image_id
        num_visual = observation.x_CPD.shape[0] * observation.x_CPD.shape[1]
        if int(is_image_1T.sum()) != num_visual:
            raise ValueError(
                f"the prompt must have a placeholder for each of {num_visual} visual tokens; got "
                f"{int(is_image_1T.sum())}; put {observation.x_CPD.shape[1]} for each camera before the words"
            )
        words_1TD = self._vlm.get_input_embeddings()(ids_1T.masked_fill(is_image_1T, 0))
        image_N = is_image_1T[0].nonzero().squeeze(1)
        x_1TD = words_1TD.clone()
        x_1TD[0, image_N] = observation.x_CPD.flatten(0, 1).to(words_1TD)
        valid_T = torch.ones_like(is_image_1T[0]) if observation.mask_1T is None else observation.mask_1T[0].bool()
        valid_T = valid_T.to(self.device)
        fresh_N = torch.zeros(num_visual, dtype=torch.bool, device=self.device)
        if observation.fresh_CP is not None:
            fresh_N = observation.fresh_CP.flatten().to(self.device)
        prefix = Prefix(
            x_TD=x_1TD[0],
            image_N=image_N,
            words_T=valid_T & ~is_image_1T[0],
            fresh_N=fresh_N,
            pixels_C3HW=None if observation.pixels_C3HW is None else observation.pixels_C3HW.to(self.device),
            num_cameras=int(observation.x_CPD.shape[0]),
            num_layers=self.num_layers,
            is_cut=observation.is_cut,
            same_as=(observation.x_CPD.shape[0], *observation.ids_1T[0].tolist(), *valid_T.tolist()),
        )
        return x_1TD, prefix, valid_T

    def _through_layers(
        self, state: SavingRun, prefix: Prefix, x_1TD: Tensor, there_R: Tensor, valid_T: Tensor, is_masked: bool
    ) -> tuple[tuple[Held, ...], tuple[int, ...]]:
        num_tokens = x_1TD.shape[1]
        every_T = torch.arange(num_tokens, device=self.device)
        # PaliGemma counts from 1 where nobody tells it positions; pi0 tells it where there is a mask.
        position_1T = (valid_T.long().cumsum(0) - 1 if is_masked else every_T + 1)[None]
        cos_1TD, sin_1TD = self._vlm.language_model.rotary_emb(x_1TD, position_ids=position_1T)
        held, rows = [], []
        alive_R, x_1RD = every_T, x_1TD
        cos_1RD, sin_1RD = cos_1TD, sin_1TD
        for number, layer in enumerate(self._layers):
            chosen = state.rows(number, alive_R if number else there_R)
            if chosen.shape[0] != alive_R.shape[0]:
                x_1RD = x_1RD[:, torch.searchsorted(alive_R, chosen)]
                cos_1RD, sin_1RD = cos_1TD[:, chosen], sin_1TD[:, chosen]
                alive_R = chosen
            q, k, v = project(layer, x_1RD, cos_1RD, sin_1RD)
            now = state.held(number, alive_R, k, v)
            seen_U = valid_T[now.slots_U]
            mask = mask_for(self._kind, seen_U.expand(alive_R.shape[0], -1), x_1RD.dtype)
            if (watch := state.watches(number)) is not Watch.NOBODY:
                wanted_T = prefix.words_T if watch is Watch.WORDS else valid_T
                looking_R = wanted_T[alive_R]
                state.saw(number, shares(layer, q[:, :, looking_R], now.k_1KUD, seen_U), now.slots_U)
            x_1RD = finish(layer, x_1RD, q, now.k_1KUD, now.v_1KUD, mask)
            held.append(now)
            rows.append(int(alive_R.shape[0]))
        return tuple(held), tuple(rows)

    def _flow(self, state: SavingRun, read: ReadPrefix, x_1AJ: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
        num_queries = 1 + self.chunk_size
        position_1Q = torch.arange(read.position, read.position + num_queries, device=self.device)[None]
        # The state sees the prefix and itself; an action sees all.
        among_QQ = torch.ones(num_queries, num_queries, dtype=torch.bool, device=self.device)
        among_QQ[0, 1:] = False
        allowed = [torch.cat([read.valid_T[one.slots_U].expand(num_queries, -1), among_QQ], dim=1) for one in read.held]
        masks = [mask_for(self._expert_kind, one, self.dtype) for one in allowed]
        told = self.num_layers // 2
        looked_T = torch.zeros(read.valid_T.shape[0], device=self.device)
        state_1S = read.state_1S.to(self.device, self.dtype)
        step = -1.0 / num_steps
        for number in range(num_steps):
            time_1 = torch.full((1,), 1.0 + number * step, dtype=torch.float32, device=self.device)
            x_1QE = self.model.embed_action_time(state_1S, x_1AJ, time_1)
            cos, sin = self._expert.rotary_emb(x_1QE, position_ids=position_1Q)
            for at, (layer, held) in enumerate(zip(self._expert_layers, read.held, strict=True)):
                q, k, v = project(layer, x_1QE, cos, sin)
                k, v = torch.cat([held.k_1KUD, k], dim=2), torch.cat([held.v_1KUD, v], dim=2)
                if at == told or state.watches_action(at):
                    weights_U = shares(layer, q[:, :, 1:], k, allowed[at][1:]).mean(0)[: held.slots_U.shape[0]]
                    if at == told:
                        looked_T[held.slots_U] += weights_U / num_steps
                    if state.watches_action(at):
                        state.saw_action(at, weights_U, held.slots_U)
                x_1QE = finish(layer, x_1QE, q, k, v, masks[at])
            velocity_1AJ = self.model.action_out_proj(self._expert.norm(x_1QE)[:, -self.chunk_size :])
            x_1AJ = x_1AJ + step * velocity_1AJ
        return x_1AJ, looked_T
