# SPDX-License-Identifier: Apache-2.0
"""The architectures that mkmodel knows: for each its metadata and its list of tensors.

Uniform weights on [-a, a] have variance a^2/3; inputs are normalised, so each product with a = unit()
comes out with variance 1, and each layer moves the residual stream by a good part of its length.
"""
import gguf
import vocabulary
from gguf import Tensor, bias, ones


def unit(n_in):
    return (3.0 / n_in) ** 0.5


def matrix(name, n_in, n_out, gain=1, **more):
    return Tensor(name, [n_in, n_out], gain * unit(n_in), **more)


class Model:
    """What all language models share.  A class of an architecture says what is special of it."""
    name = None
    # of a shape that tests use, where none is asked for: small, and large enough to have every part
    shape = {"layers": 4, "width": 128, "ffn": 256, "heads": 4, "kv_heads": 4, "vocab": 512, "tied": False}

    def __init__(self, args):
        self.args = args
        self.w, self.ffn, self.layers = args.width, args.ffn, args.layers
        self.heads, self.kv_heads = args.heads, args.kv_heads
        self.head = args.width // args.heads
        self.kv = self.head * args.kv_heads

    def metadata(self):
        a, type_number = self.args, gguf.TYPES[self.args.type][1]
        n = gguf.count(self.tensors()) / 1e6
        keys = {
            "general.architecture": self.name,
            "general.name": f"random {n:.0f}M seed {a.seed}",
            "general.file_type": type_number,
        }
        own = {
            "context_length": a.context,
            "embedding_length": a.width,
            "block_count": a.layers,
            "feed_forward_length": a.ffn,
            "attention.head_count": a.heads,
            "attention.head_count_kv": a.kv_heads,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "rope.dimension_count": self.head,
            "vocab_size": a.vocab,
            **self.special(),
        }
        keys.update({f"{self.name}.{key}": value for key, value in own.items()})
        return {**keys, **vocabulary.metadata(a.vocab, a.infill)}

    def special(self):
        """Metadata of this architecture alone."""
        return {}

    def tensors(self):
        return list(self.ends()) + [t for i in range(self.layers) for t in self.layer(i, f"blk.{i}.")]

    def ends(self):
        rows = vocabulary.rows(self.args.vocab)
        yield matrix("token_embd.weight", self.w, self.args.vocab, 3, rows=rows)
        yield ones("output_norm.weight", self.w)
        if not self.args.tied:
            yield matrix("output.weight", self.w, self.args.vocab, 3, rows=rows)

    def attention(self, b, norm="attn_norm.weight", out="attn_output.weight"):
        if norm:
            yield ones(b + norm, self.w)
        yield matrix(b + "attn_q.weight", self.w, self.head * self.heads)
        yield matrix(b + "attn_k.weight", self.w, self.kv)
        yield matrix(b + "attn_v.weight", self.w, self.kv)
        yield matrix(b + out, self.head * self.heads, self.w, 2)

    def feed_forward(self, b):
        yield ones(b + "ffn_norm.weight", self.w)
        yield matrix(b + "ffn_gate.weight", self.w, self.ffn)
        yield matrix(b + "ffn_up.weight", self.w, self.ffn)
        yield matrix(b + "ffn_down.weight", self.ffn, self.w, 2)

    def layer(self, _, b):
        yield from self.attention(b)
        yield from self.feed_forward(b)


class Llama(Model):
    name = "llama"


class Gemma3(Model):
    """Layers with a sliding window of 32, each sixth without; norms on both sides of each block."""
    name = "gemma3"
    shape = {**Model.shape, "layers": 6, "kv_heads": 1}

    def ends(self):
        for t in super().ends():  # the program multiplies what it reads by the root of the width
            yield t._replace(amplitude=t.amplitude / self.w ** 0.5) if t.name.startswith("token") else t

    def special(self):
        return {"attention.key_length": self.head, "attention.value_length": self.head,
                "attention.sliding_window": 32, "rope.freq_base": 1e6}

    def layer(self, _, b):
        yield from self.attention(b)
        for name in ("attn_q_norm", "attn_k_norm"):
            yield ones(b + name + ".weight", self.head)
        yield ones(b + "post_attention_norm.weight", self.w)
        yield from self.feed_forward(b)
        yield ones(b + "post_ffw_norm.weight", self.w)


class Bert(Model):
    """An encoder for embeddings: no cache, positions learned, biases everywhere."""
    name = "bert"
    shape = {**Model.shape, "vocab": 512, "tied": True}
    pooling = {"mean": 1, "cls": 2, "rank": 4}

    def special(self):
        return {"attention.layer_norm_epsilon": 1e-12, "attention.causal": False,
                "pooling_type": self.pooling[self.args.pooling]}

    def metadata(self):
        return {**super().metadata(), "tokenizer.ggml.token_type_count": 2,
                "tokenizer.ggml.add_eos_token": True}

    def normed(self, name):
        yield ones(name + ".weight", self.w)
        yield bias(name + ".bias", self.w)

    def ends(self):
        yield matrix("token_embd.weight", self.w, self.args.vocab, 3)
        yield matrix("token_types.weight", self.w, 2, exact=True)
        yield matrix("position_embd.weight", self.w, self.args.context, exact=True)
        yield from self.normed("token_embd_norm")
        if self.args.pooling == "rank":
            yield matrix("cls.weight", self.w, self.w)
            yield bias("cls.bias", self.w)
            yield matrix("cls.output.weight", self.w, 1, exact=True)
            yield bias("cls.output.bias", 1)

    def layer(self, _, b):
        yield from self.attention(b, norm=None)
        for name, n in (("attn_q", self.w), ("attn_k", self.kv), ("attn_v", self.kv), ("attn_output", self.w),
                        ("ffn_up", self.ffn), ("ffn_down", self.w)):
            yield bias(b + name + ".bias", n)
        yield matrix(b + "ffn_up.weight", self.w, self.ffn)
        yield matrix(b + "ffn_down.weight", self.ffn, self.w, 2)
        yield from self.normed(b + "attn_output_norm")
        yield from self.normed(b + "layer_output_norm")


class T5(Model):
    """An encoder and a decoder, with a bias of attention by relative position."""
    name = "t5"
    shape = {**Model.shape, "layers": 2}
    buckets = 32

    def special(self):
        return {"attention.relative_buckets_count": self.buckets, "decoder_start_token_id": 1,
                "attention.key_length": self.head, "attention.value_length": self.head}

    def ends(self):
        rows = vocabulary.rows(self.args.vocab)
        yield matrix("token_embd.weight", self.w, self.args.vocab, 3)
        yield ones("enc.output_norm.weight", self.w)
        yield ones("dec.output_norm.weight", self.w)
        yield matrix("output.weight", self.w, self.args.vocab, 3, rows=rows)

    def layer(self, i, _):
        for side, kinds in (("enc", ["attn_"]), ("dec", ["attn_", "cross_attn_"])):
            b = f"{side}.blk.{i}."
            if i == 0:
                yield Tensor(b + "attn_rel_b.weight", [self.heads, self.buckets], 1, exact=True)
            for kind in kinds:
                yield ones(b + kind + "norm.weight", self.w)
                for name in "qkvo":
                    yield matrix(b + kind + name + ".weight", self.w, self.w)
            yield from self.feed_forward(b)


class Mamba2(Model):
    """No attention: a state per sequence, with a convolution before it."""
    name = "mamba2"
    shape = {**Model.shape, "heads": 1, "kv_heads": 1, "tied": True}
    state, groups, kernel, ssm_heads = 32, 1, 4, 8

    def special(self):
        return {"ssm.conv_kernel": self.kernel, "ssm.inner_size": 2 * self.w, "ssm.state_size": self.state,
                "ssm.time_step_rank": self.ssm_heads, "ssm.group_count": self.groups,
                "attention.head_count": 0, "attention.head_count_kv": 0, "feed_forward_length": 0,
                "rope.dimension_count": 0}

    def mixer(self, b):
        inner, heads = 2 * self.w, self.ssm_heads
        mixed = inner + 2 * self.groups * self.state
        yield ones(b + "attn_norm.weight", self.w)
        yield matrix(b + "ssm_in.weight", self.w, inner + mixed + heads)
        yield matrix(b + "ssm_conv1d.weight", self.kernel, mixed, exact=True)
        yield bias(b + "ssm_conv1d.bias", mixed)
        yield bias(b + "ssm_dt.bias", heads)
        # how fast each head forgets; positive ones would let the state grow
        yield Tensor(b + "ssm_a", [1, heads], 0.5, base=-1.0, exact=True)
        yield ones(b + "ssm_d", 1, heads)
        yield ones(b + "ssm_norm.weight", inner // self.groups, self.groups)
        yield matrix(b + "ssm_out.weight", inner, self.w, 2)

    def layer(self, _, b):
        yield from self.mixer(b)


class GraniteHybrid(Mamba2):
    """Every second layer has attention, the others a state; all of them a feed-forward block."""
    name = "granitehybrid"
    shape = {**Model.shape, "tied": True}

    def special(self):
        kv = [self.kv_heads if i % 2 else 0 for i in range(self.layers)]
        own = {k: v for k, v in super().special().items() if k.startswith("ssm.")}
        return {**own, "attention.head_count_kv": kv, "rope.scaling.finetuned": True}

    def layer(self, i, b):
        yield from self.attention(b) if i % 2 else self.mixer(b)
        yield from self.feed_forward(b)


class Qwen2Moe(Model):
    """Eight experts of which each token uses two, and one that all tokens use."""
    name = "qwen2moe"
    experts, used = 8, 2

    def special(self):
        return {"expert_count": self.experts, "expert_used_count": self.used,
                "expert_feed_forward_length": self.ffn, "expert_shared_feed_forward_length": self.ffn}

    def moe(self, b):
        yield ones(b + "ffn_norm.weight", self.w)
        yield matrix(b + "ffn_gate_inp.weight", self.w, self.experts, 2, exact=True)
        for name, n_in, n_out in (("gate", self.w, self.ffn), ("up", self.w, self.ffn),
                                  ("down", self.ffn, self.w)):
            yield Tensor(f"{b}ffn_{name}_exps.weight", [n_in, n_out, self.experts], unit(n_in))
            yield matrix(f"{b}ffn_{name}_shexp.weight", n_in, n_out)

    def layer(self, _, b):
        yield from self.attention(b)
        for name, n in (("attn_q", self.w), ("attn_k", self.kv), ("attn_v", self.kv)):
            yield bias(b + name + ".bias", n)
        yield from self.moe(b)
        yield Tensor(b + "ffn_gate_inp_shexp.weight", [self.w], unit(self.w))


class DeepSeek2(Qwen2Moe):
    """Keys and values through a narrow matrix (MLA); the first layer has no experts."""
    name = "deepseek2"
    q_rank, kv_rank, rope = 64, 64, 32

    def special(self):
        wide = self.kv_rank + self.rope
        return {**super().special(), "leading_dense_block_count": 1, "expert_shared_count": 1,
                "attention.head_count_kv": 1, "attention.q_lora_rank": self.q_rank,
                "attention.kv_lora_rank": self.kv_rank, "attention.key_length": wide,
                "attention.value_length": self.kv_rank, "attention.key_length_mla": self.head + self.rope,
                "attention.value_length_mla": self.head, "rope.dimension_count": self.rope,
                "expert_weights_scale": 1.0}

    def layer(self, i, b):
        heads, head = self.heads, self.head
        yield ones(b + "attn_norm.weight", self.w)
        yield matrix(b + "attn_q_a.weight", self.w, self.q_rank)
        yield ones(b + "attn_q_a_norm.weight", self.q_rank)
        yield matrix(b + "attn_q_b.weight", self.q_rank, heads * (head + self.rope))
        yield matrix(b + "attn_kv_a_mqa.weight", self.w, self.kv_rank + self.rope)
        yield ones(b + "attn_kv_a_norm.weight", self.kv_rank)
        yield Tensor(b + "attn_k_b.weight", [head, self.kv_rank, heads], unit(head), exact=True)
        yield Tensor(b + "attn_v_b.weight", [self.kv_rank, head, heads], unit(self.kv_rank), exact=True)
        yield matrix(b + "attn_output.weight", heads * head, self.w, 2)
        yield from self.feed_forward(b) if i == 0 else self.moe(b)


class Clip(Model):
    """A vision projector (mmproj) for a language model of the same width: 16 tokens per picture."""
    name = "clip"
    shape = {**Model.shape, "layers": 3}
    side, patch = 56, 14

    def metadata(self):
        own = {"image_size": self.side, "patch_size": self.patch, "embedding_length": self.w,
               "feed_forward_length": self.ffn, "block_count": self.layers, "projection_dim": self.w,
               "attention.head_count": self.heads, "attention.layer_norm_epsilon": 1e-5,
               "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        return {"general.architecture": self.name, "general.type": "mmproj",
                "general.name": f"random projector seed {self.args.seed}",
                "general.file_type": gguf.TYPES[self.args.type][1], "clip.has_vision_encoder": True,
                "clip.projector_type": "mlp", "clip.use_gelu": True,
                **{f"clip.vision.{key}": value for key, value in own.items()}}

    def ends(self):
        yield Tensor("v.patch_embd.weight", [self.patch, self.patch, 3, self.w],
                     unit(3 * self.patch ** 2), exact=True)
        yield matrix("v.position_embd.weight", self.w, (self.side // self.patch) ** 2, exact=True)
        for name in ("pre_ln", "post_ln"):
            yield ones(f"v.{name}.weight", self.w)
            yield bias(f"v.{name}.bias", self.w)
        for i in (0, 2):
            yield matrix(f"mm.{i}.weight", self.w, self.w)
            yield bias(f"mm.{i}.bias", self.w)

    def layer(self, i, _):
        b = f"v.blk.{i}."
        yield from self.attention(b, norm=None, out="attn_out.weight")
        yield matrix(b + "ffn_up.weight", self.w, self.ffn)
        yield matrix(b + "ffn_down.weight", self.ffn, self.w, 2)
        for name, n in (("attn_q", self.w), ("attn_k", self.w), ("attn_v", self.w), ("attn_out", self.w),
                        ("ffn_up", self.ffn), ("ffn_down", self.w)):
            yield bias(b + name + ".bias", n)
        for name in ("ln1", "ln2"):
            yield ones(f"{b}{name}.weight", self.w)
            yield bias(f"{b}{name}.bias", self.w)


class Lora(Model):
    """An adapter of rank 8 for a llama of the same shape."""
    name = "lora"
    rank = 8

    def metadata(self):
        return {"general.architecture": "llama", "general.type": "adapter",
                "general.name": f"random adapter seed {self.args.seed}",
                "general.file_type": gguf.TYPES[self.args.type][1],
                "adapter.type": "lora", "adapter.lora.alpha": 8.0}

    def ends(self):
        return []

    def layer(self, _, b):
        for name, n_out in (("attn_q", self.w), ("attn_v", self.kv), ("ffn_up", self.ffn)):
            yield matrix(f"{b}{name}.weight.lora_a", self.w, self.rank, exact=True)
            yield matrix(f"{b}{name}.weight.lora_b", self.rank, n_out, exact=True)


ALL = {model.name: model for model in (Llama, Bert, Clip, DeepSeek2, Gemma3, GraniteHybrid, Lora, Mamba2,
                                       Qwen2Moe, T5)}
