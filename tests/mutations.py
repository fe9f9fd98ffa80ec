"""Edits of the library that change what a method does. `make mutate` tries whether a test notices.

One line each: method, what is broken, file under src/codistill, the text that is replaced, and what
by. `tests/test_mutations.py` sees to it that every edit still applies.
"""

from typing import NamedTuple


class Edit(NamedTuple):
    method: str
    what: str
    file: str
    old: str
    new: str


def _edits(method: str, file: str, *edits: tuple[str, str, str]) -> list[Edit]:
    return [Edit(method, what, file, old, new) for what, old, new in edits]


EDITS: list[Edit] = [
    *_edits(
        "independent",
        "methods/papers/independent.py",
        (
            "only the first peer learns",
            "ce_loss(out.logits, labels)",
            "ce_loss(out.logits[:1], labels)",
        ),
        (
            "only the ensemble learns",
            "ce_loss(out.logits, labels)",
            "ce_loss(out.logits.mean(0), labels)",
        ),
        ("half the weight", "ce_loss(out.logits, labels)", "0.5 * ce_loss(out.logits, labels)"),
        (
            "the last peer is held fixed",
            "ce_loss(out.logits, labels)",
            "ce_loss(torch.cat([out.logits[:-1], out.logits[-1:].detach()]), labels)",
        ),
    ),
    *_edits(
        "independent",
        "methods/losses.py",
        (
            "cross-entropy is averaged over peers",
            "return K * F.cross_entropy",
            "return F.cross_entropy",
        ),
    ),
    *_edits(
        "kd",
        "methods/papers/kd.py",
        (
            "KL reversed",
            'kd_loss(out.logits, out.extra["teacher"].detach(), self',
            'kd_loss(out.extra["teacher"].detach().expand_as(out.logits), out.logits, self',
        ),
        (
            "the teacher is trained",
            'self.teacher = Frozen(teacher_of(peers, teacher, "KD"))',
            'self.teacher = teacher_of(peers, teacher, "KD")',
        ),
        ("the weight is lost", "self.kd_weight * kd", "kd"),
        ("the temperature is lost", "self.temperature, self", "3.0, self"),
        ("no labels", '{"ce": ce_loss(out.logits, labels), ', "{"),
    ),
    *_edits(
        "kd",
        "methods/teacher.py",
        (
            "teachers of other classes are taken",
            "if network.num_classes != peers.num_classes:",
            "if False:",
        ),
        (
            "the teacher is taken over, not copied",
            "copy.deepcopy(teacher) if",
            "teacher if",
        ),
    ),
    *_edits(
        "kd",
        "methods/modes.py",
        ("a frozen module goes into train mode", "super().train(False)", "super().train(mode)"),
        (
            "a frozen module starts in train mode",
            ".requires_grad_(False).eval()",
            ".requires_grad_(False)",
        ),
    ),
    *_edits(
        "dml",
        "methods/papers/dml.py",
        ("targets not held fixed", "z.detach()[None]", "z[None]"),
        ("students held fixed", "z[:, None], z.detach()[None]", "z.detach()[:, None], z[None]"),
        ("sum over the others, not mean", "pairs / (K - 1)", "pairs"),
        ("mean over all, itself too", "pairs / (K - 1)", "pairs / K"),
        ("the temperature is lost", "self.temperature, self", "1.0, self"),
        (
            "KL reversed",
            "kd_loss(z[:, None], z.detach()[None], self",
            "kd_loss(z.detach()[None], z[:, None], self",
        ),
    ),
    *_edits(
        "dml",
        "methods/losses.py",
        ("T^2 dropped", "return temperature**2 * kl", "return kl"),
        ("T instead of T^2", "return temperature**2 * kl", "return temperature * kl"),
        ("sum over images", "kl.mean(dim=-1).sum()", "kl.sum()"),
        ("mean over peers", "kl.mean(dim=-1).sum()", "kl.mean()"),
        ("logits are never standardised", "    if standardise:", "    if False:"),
        (
            "the biased deviation",
            "z.std(dim=-1, keepdim=True)",
            "z.std(dim=-1, keepdim=True, correction=0)",
        ),
    ),
    *_edits(
        "cl_ilr",
        "methods/papers/cl_ilr.py",
        (
            "the target holds the peer itself",
            "(z.sum(dim=0) - z) / (K - 1)",
            "z.mean(dim=0).expand_as(z)",
        ),
        ("mean over K", "(z.sum(dim=0) - z) / (K - 1)", "(z.sum(dim=0) - z) / K"),
        ("target not held fixed", "others.detach() if", "others if"),
        ("the hard weight is lost", "self.hard_weight * ce_loss", "ce_loss"),
        ("the soft weight is lost", "w = self.soft_weight * ", "w = "),
        ("ramp-up off", " * sigmoid_ramp_up(epoch, self.ramp_up)", ""),
        (
            "targets are held fixed where they should not be",
            "others.detach() if self.hold_targets else others",
            "others.detach()",
        ),
        ("gradient at the split not divided", "gradient / len(self.peers)", "gradient"),
        (
            "gradient at the split divided for one view only",
            "for x in out.split:",
            "for x in out.split[:1]:",
        ),
        ("the temperature is lost", "self.temperature, self", "2.0, self"),
    ),
    *_edits(
        "one",
        "methods/papers/one.py",
        ("target not held fixed", "z_m.detach()", "z_m"),
        ("gate unnormalised", "nn.ReLU(), nn.Softmax(dim=1))", "nn.ReLU())"),
        ("gate normalised over images", "nn.Softmax(dim=1)", "nn.Softmax(dim=0)"),
        ("gate without normalisation of its scores", "nn.BatchNorm1d(K)", "nn.Identity()"),
        ("gate without ReLU", "nn.ReLU(), nn.Softmax", "nn.Softmax"),
        ("the gated ensemble does not learn", " + ce_loss(z_m, labels)", ""),
        ("ramp-up off", "w * kd_loss", "kd_loss"),
        (
            "the gate does not train the trunk",
            "trunk.mean(dim=(2, 3)))",
            "trunk.mean(dim=(2, 3)).detach())",
        ),
        (
            "equal weights",
            'torch.einsum("bk,kbc->bc", g, out.logits)',
            'torch.einsum("bk,kbc->bc", 0 * g + 1 / g.shape[1], out.logits)',
        ),
        ("the temperature is lost", "self.temperature, self", "3.0, self"),
    ),
    *_edits(
        "codistillation",
        "methods/papers/codistillation.py",
        (
            "copies never renewed",
            "if since >= 0 and (since % self.refresh_every == 0 or not self.renewed):",
            "if False:",
        ),
        ("copies renewed every epoch", "since % self.refresh_every == 0 or", "True or"),
        ("copies renewed from the start", "since >= 0 and (", "("),
        ("copies never renewed are not told", "if epoch > 0 and not self._renewed:", "if False:"),
        ("copies are not renewed in a late beginning", " or not self.renewed)", ")"),
        ("burn-in off", "if epoch < self.burn_in:", "if False:"),
        ("burn-in one epoch longer", "if epoch < self.burn_in:", "if epoch <= self.burn_in:"),
        (
            "a peer learns from itself too",
            ".masked_fill(itself, -math.inf)",
            ".masked_fill(itself & False, -math.inf)",
        ),
        (
            "mean of logits",
            "log_p.logsumexp(dim=1) - math.log(K - 1)",
            "log_p.masked_fill(itself, 0).sum(dim=1).log_softmax(-1)",
        ),
        (
            "copies are trained",
            "self.copies = Frozen(copy.deepcopy(peers))",
            "self.copies = Frozen(copy.deepcopy(peers)); self.copies.requires_grad_(True)",
        ),
        ("the peers themselves teach", "self.copies(views).logits", "z.detach()"),
        ("the weight is lost", "self.kd_weight * kd", "kd"),
        ("the temperature is lost", "T * log_mean, T, self", "log_mean, 1.0, self"),
    ),
    *_edits(
        "kdcl",
        "methods/papers/kdcl.py",
        ("target not held fixed", "at_least_float32(z.detach())", "at_least_float32(z)"),
        (
            "naive: the worst peer",
            "_cross_entropies(z, labels).argmin",
            "_cross_entropies(z, labels).argmax",
        ),
        (
            "naive: one peer for the batch",
            "_cross_entropies(z, labels).argmin(dim=0)",
            "_cross_entropies(z, labels).mean(dim=1, keepdim=True).argmin(dim=0).expand_as(labels)",
        ),
        ("minlogit: the largest logit", "(z - true).amin(dim=0)", "(z - true).amax(dim=0)"),
        ("minlogit: the true class not subtracted", "(z - true).amin(dim=0)", "z.amin(dim=0)"),
        (
            "linear: equal weights",
            "return log_a.softmax(dim=1)\n\n\n@torch",
            "return 0 * log_a + 1 / K\n\n\n@torch",
        ),
        ("linear: uphill", "trial = log_a - rate * gradient", "trial = log_a + rate * gradient"),
        ("linear: few steps", "steps: int = 30", "steps: int = 3"),
        (
            "general: weights of the last epoch never change",
            'if self.target == "general" and held_out is not None:',
            "if False:",
        ),
        (
            "general: row sums instead of the inverse",
            "torch.linalg.solve(correlation + tiny * eye, correlation.new_ones(K))",
            "1 / correlation.sum(dim=1)",
        ),
        ("general: weights unnormalised", "return (w / w.sum()).to(dtype)", "return w.to(dtype)"),
        (
            "general: measured in train mode",
            "with eval_mode(method):",
            "with contextlib.nullcontext():",
        ),
        (
            "general: logits instead of probabilities",
            ".logits).softmax(dim=-1)  # (K, B, C)",
            ".logits)  # (K, B, C)",
        ),
        ("one view for all", "self.views = len(peers)", "self.views = 1"),
        ("the temperature is lost", "teacher, self.temperature, self", "teacher, 2.0, self"),
        ("the weight is lost", "self.kd_weight * kd_loss", "kd_loss"),
    ),
    *_edits(
        "okddip",
        "methods/papers/okddip.py",
        ("targets held fixed", "kd_loss(z, targets, T", "kd_loss(z, targets.detach(), T"),
        ("the leader's target held fixed", "z.mean(dim=0), T", "z.mean(dim=0).detach(), T"),
        (
            "the leader learns from all",
            "kd_loss(leader, z.mean(dim=0), T",
            "kd_loss(leader, out.logits.mean(dim=0), T",
        ),
        (
            "the leader is an auxiliary peer too",
            "z, leader, T = out.logits[:-1]",
            "z, leader, T = out.logits[1:]",
        ),
        ("ramp-up off for the peers", '"first": w * ', '"first": '),
        ("ramp-up off for the leader", '"second": w * ', '"second": '),
        ("another peer is kept", "len(self.peers) - 1)}", "0)}"),
    ),
    *_edits(
        "okddip",
        "methods/attention.py",
        ("attention over the wrong peer", '"bij,jbc->ibc"', '"bji,jbc->ibc"'),
        (
            "attention unnormalised",
            "(query @ key.mT).log_softmax(dim=-1)",
            "(query @ key.mT)",
        ),
        (
            "attention normalised over listeners",
            "(query @ key.mT).log_softmax(dim=-1)",
            "(query @ key.mT).log_softmax(dim=1)",
        ),
        ("query and key are one", "(query @ key.mT)", "(query @ query.mT)"),
        ("probabilities not softened", "log_p = (z / T)", "log_p = z"),
        ("the mixture is of the other kind", 'if mix == "logits":', 'if mix != "logits":'),
    ),
    *_edits(
        "okddip",
        "methods/losses.py",
        (
            "the teacher is held fixed inside the helper",
            "log_p = F.log_softmax(teacher",
            "log_p = F.log_softmax(teacher.detach()",
        ),
    ),
    *_edits(
        "pcl",
        "methods/papers/pcl.py",
        (
            "mean teachers never updated are not told",
            "if epoch > 0 and not self._updated:",
            "if False:",
        ),
        (
            "a first step in a later epoch is refused",
            "self._updated = True  # they will be",
            "pass",
        ),
        ("EMA without buffers", "self.peers.state_dict().items()", "self.peers.named_parameters()"),
        ("EMA that keeps too little", "(1 - keep)", "keep"),
        (
            "no warm-up of the EMA",
            "(1 - 1 / (self.step + 1)).clamp(max=self.decay)",
            "0 * self.step + self.decay",
        ),
        ("steps are not counted", "self.step += 1", "pass"),
        ("EMA never updated", "        self.update_mean_teachers()\n", ""),
        (
            "a peer learns from its own mean teacher too",
            "w * (pairs - own) / (K - 1)",
            "w * pairs / K",
        ),
        ("sum over the others, not mean", "w * (pairs - own) / (K - 1)", "w * (pairs - own)"),
        ("the fused target not held fixed", "z_f.detach()", "z_f"),
        (
            "mean teachers see one view",
            "self.mean_teachers(views).logits",
            "self.mean_teachers(views[:1]).logits",
        ),
        ("ramp-up off for the fused", '"fkd": w * ', '"fkd": '),
        ("ramp-up off for the mean teachers", '"mkd": w * ', '"mkd": '),
        ("the fused classifier does not learn", " + ce_loss(z_f, labels)", ""),
        (
            "embeddings detached",
            "torch.cat(out.embeddings, dim=1)",
            "torch.cat(out.embeddings, dim=1).detach()",
        ),
        ("one view for all", "self.views = len(peers)", "self.views = 1"),
        (
            "the peers are kept",
            '{f"mean_teacher{k}": Kept(means, k)',
            '{f"mean_teacher{k}": Kept(self.peers, k)',
        ),
        ("peers cannot be kept", "averaged | super().students()", "averaged"),
        (
            "a peer is kept without held-out images",
            "averaged | super().students()",
            "super().students() | averaged",
        ),
    ),
    *_edits(
        "ffl",
        "methods/papers/ffl.py",
        ("the ensemble not held fixed", "z_e.detach()", "z_e"),
        ("the fused not held fixed", "z_f.detach()", "z_f"),
        (
            "maps detached",
            "self.fusion(out.feature_maps)",
            "self.fusion([x.detach() for x in out.feature_maps])",
        ),
        ("ramp-up off for the ensemble", "w * kd_loss(z_f", "kd_loss(z_f"),
        ("ramp-up off for the fused", "w * kd_loss(z, ", "kd_loss(z, "),
        ("the fused classifier does not learn", " + ce_loss(z_f, labels)", ""),
        ("one weight decay", ', "weight_decay": self.fusion_weight_decay', ""),
        ("roles exchanged", "kd_loss(z_f, z_e.detach(), T", "kd_loss(z_e, z_f.detach(), T"),
    ),
    *_edits(
        "ffl",
        "methods/losses.py",
        ("ramp-up linear in the exponent", "remaining**2", "remaining"),
        ("ramp-up of the wrong height", "-5.0 *", "-4.0 *"),
    ),
    *_edits(
        "afd",
        "methods/papers/afd.py",
        (
            "wrong peer in the ring of logits",
            "z.detach().roll(1, dims=0)",
            "z.detach().roll(-1, dims=0)",
        ),
        (
            "wrong peer in the ring of maps",
            "teachers = [maps[-1], *maps[:-1]]",
            "teachers = [*maps[1:], maps[0]]",
        ),
        ("a target of logits not held fixed", "z.detach().roll", "z.roll"),
        (
            "real and fake exchanged",
            "_distance(fake, goal=0) + _distance(real, goal=1)",
            "_distance(fake, goal=1) + _distance(real, goal=0)",
        ),
        (
            "the generator's goal flipped",
            'g_loss = {"g": _distance(self._scores(own), goal=1)}',
            'g_loss = {"g": _distance(self._scores(own), goal=0)}',
        ),
        (
            "D is moved by the peers' optimizer",
            'minimize(d_loss, optimizers["discriminators"])',
            'minimize(d_loss, optimizers["main"])',
        ),
        (
            "the peers move D",
            'minimize(g_loss, optimizers["extractors"])',
            'minimize(g_loss, optimizers["discriminators"])',
        ),
        (
            "the peers fool with maps that are held fixed",
            "zip(*self._pairs(maps, hold_teachers=True), strict=True)",
            "zip(*self._pairs([x.detach().requires_grad_() for x in maps]), strict=True)",
        ),
        (
            "maps of before the first update",
            """        losses = super().training_step(batch, optimizers, epoch)
        if self.alignment != "adversarial":
            return losses
        maps = self.peers(batch.views).feature_maps
""",
            """        before = copy.deepcopy(self.peers)
        losses = super().training_step(batch, optimizers, epoch)
        if self.alignment != "adversarial":
            return losses
        maps = torch.func.functional_call(self.peers, dict(before.state_dict()), (batch.views,)).feature_maps
""",
        ),
        (
            "direct alignment moves the teacher",
            "self._pairs(out.feature_maps, hold_teachers=True)",
            "self._pairs(out.feature_maps)",
        ),
        (
            "L1 and L2 exchanged",
            'power = 1 if self.alignment == "l1" else 2',
            'power = 2 if self.alignment == "l1" else 1',
        ),
        ("the recipe's schedule for all", 'if optimizer == "main":', "if True:"),
        (
            "absolute instead of squared errors",
            ".square().mean(dim=1)",
            ".abs().mean(dim=1)",
        ),
        ("KL of logits off", "if self.kd:", "if False:"),
        ("constants that nothing uses are scaled and noted", "self.scales = {}", "pass"),
        (
            "transfer layers do not learn",
            "*self.discriminators.parameters(), *self.transfers.parameters()",
            "*self.discriminators.parameters()",
        ),
        ("a learning rate of any height", "min(_HIGHEST_LR, ", "max(0.0, "),
        (
            "a learning rate that stays that of 300 epochs",
            '"adversarial_lr": _travel, ',
            "",
        ),
        (
            "discriminators that are saturated at the start",
            "nn.init.normal_(last.weight, std=_START * (2 * d) ** -0.5)",
            "initialise_convolutions(last)",
        ),
        (
            "coupled and decoupled decay exchanged",
            "adamw if self.decoupled_decay else adam",
            "adam if self.decoupled_decay else adamw",
        ),
        (
            "a decay where none is asked for",
            "adversarial_weight_decay: float = 0.0",
            "adversarial_weight_decay: float = 0.1",
        ),
        (
            "accuracies on real and fake maps exchanged",
            "_told_right(real, fake)",
            "_told_right(fake, real)",
        ),
        ("accuracies that are no %", "100 * told", "told"),
        (
            "accuracies of the first discriminator for all",
            '_{name}": share[k]',
            '_{name}": share[0]',
        ),
        ("a fake map counts as told where it is not", "fake < 0.5", "fake > 0.5"),
    ),
    *_edits(
        "okdmde",
        "methods/papers/okdmde.py",
        ("targets held fixed", "kd_loss(z, targets, T", "kd_loss(z, targets.detach(), T"),
        (
            "diversity cut off from the weights",
            "_classifier_weight(head) for head in",
            "_classifier_weight(head).detach() for head in",
        ),
        (
            "diversity rewarded the wrong way",
            'terms["cd"] = self.diversity_weight',
            'terms["cd"] = -self.diversity_weight',
        ),
        (
            "diversity of the leader too",
            "for head in self.peers.heads[:-1]]",
            "for head in self.peers.heads]",
        ),
        ("diversity without its weight", "self.diversity_weight * cd_loss", "cd_loss"),
        ("class vectors not normalised", "F.normalize(W, dim=1)", "W"),
        ("squared norm", "(a.T @ b).norm()", "(a.T @ b).square().sum()"),
        ("norm of the product over dimensions", "(a.T @ b).norm()", "(a @ b.T).norm()"),
        (
            "fusion without the peer's own map",
            "[x + fused for x in matched]",
            "[fused for x in matched]",
        ),
        ("fusion off", "maps if self.fusion is None else self.fusion(maps)", "maps"),
        ("attention to all peers", "out.feature_maps[:-1]", "out.feature_maps[1:]"),
        ("ramp-up off", '"first": w * ', '"first": '),
        ("ramp-up off for the leader", '"second": w * ', '"second": '),
        ("the leader's target held fixed", "z.mean(dim=0), T", "z.mean(dim=0).detach(), T"),
        ("another peer is kept", "len(self.peers) - 1)}", "0)}"),
    ),
    *_edits(
        "mfef",
        "methods/papers/mfef.py",
        ("the ensemble not held fixed", "z_e.detach()", "z_e"),
        ("the fused not held fixed", "z_f.detach()", "z_f"),
        ("one kernel for all", "KERNELS = (3, 5, 7, 9)", "KERNELS = (3, 3, 3, 3)"),
        (
            "groups in another order",
            "torch.cat([c(g) for c, g in zip(self.convolutions, groups, strict=True)], dim=1)",
            "torch.cat([c(g) for c, g in zip(self.convolutions, groups, strict=True)][::-1], dim=1)",
        ),
        ("no normalisation", "return self.bn(x).relu()", "return x.relu()"),
        (
            "attention that adds",
            "return x * self.weigh(summary).sigmoid()",
            "return x + self.weigh(summary).sigmoid()",
        ),
        (
            "channel attention without sigmoid",
            "self.weigh(x.mean(dim=(2, 3))).sigmoid()",
            "self.weigh(x.mean(dim=(2, 3)))",
        ),
        (
            "spatial attention over the mean twice",
            "x.amax(dim=1, keepdim=True)",
            "x.mean(dim=1, keepdim=True)",
        ),
        ("parts are skipped", "self.fusion(maps)", "self.fusion(out.feature_maps)"),
        ("ramp-up off", '"fkd": w * ', '"fkd": '),
        ("ramp-up off for the ensemble", '"ekd": w * ', '"ekd": '),
        ("one weight decay", ', "weight_decay": self.fusion_weight_decay', ""),
        ("maps detached", "f(x) for f, x in", "f(x.detach()) for f, x in"),
    ),
    *_edits(
        "shake",
        "methods/papers/shake.py",
        (
            "the students' target not held fixed",
            "kd_loss(z, a.detach()[None]",
            "kd_loss(z, a[None]",
        ),
        ("the shadow's target not held fixed", "kd_loss(a[None], z.detach()", "kd_loss(a[None], z"),
        ("sum over the students, not mean", "T, self.standardise) / K", "T, self.standardise)"),
        ("the shadow does not learn from labels", " + ce_loss(a, labels)", ""),
        ("the shadow does not learn from the teacher", "(learnt + likeness)", "learnt"),
        ("the teacher is trained", "Frozen(Peers([network]))", "Peers([network])"),
        (
            "cross-entropy of logits as they are",
            "z, z_t, a = normalised(z), ",
            "_, z_t, a = normalised(z), ",
        ),
        (
            "normalised by the unbiased deviation",
            "math.pi * F.layer_norm",
            "math.pi * (1 - 1 / z.shape[-1]) ** 0.5 * F.layer_norm",
        ),
        ("no side maps", "x = x + side(fixed)", "x = x + 0 * side(fixed)"),
        ("the last map alone", "x, *rest = maps", "x, *rest = 0 * maps[0], *maps[1:]"),
        ("the weight of the teacher is lost", "self.kd_weight * kd_loss", "kd_loss"),
        ("the weight of the labels is lost", "self.hard_weight * ce_loss", "ce_loss"),
        ("the weight of the shadow is lost", "beta * (learnt", "(learnt"),
        ("the temperature is lost", "T, beta, K = self.temperature", "T, beta, K = 4.0"),
    ),
    *_edits(
        "ffsd",
        "methods/papers/ffsd.py",
        (
            "the fusion trains the students",
            "[x.detach() for x in out.feature_maps[:-1]]",
            "out.feature_maps[:-1]",
        ),
        ("the ensemble not held fixed", "z.detach().mean(dim=0)", "z.mean(dim=0)"),
        (
            "the leader is in the ensemble",
            "z, z_f, leader = out.logits[:-1]",
            "z, z_f, leader = out.logits[1:]",
        ),
        ("the fused not held fixed", "kd_loss(leader, z_f.detach()", "kd_loss(leader, z_f"),
        ("the fused map not held fixed", 'out.hidden["fused"].detach()', 'out.hidden["fused"]'),
        (
            "the students' maps not held fixed",
            "[self.spread(F_l)], [x.detach() for x in maps]",
            "[self.spread(F_l)], maps",
        ),
        (
            "the other's attention not held fixed",
            "diversity_loss(x, before.detach())",
            "diversity_loss(x, before)",
        ),
        ("students' targets not held fixed", "z.detach()[None]", "z[None]"),
        ("sum over the others, not mean", "pairs / (J - 1)", "pairs"),
        ("diversity from the start", '"diversity": w * ', '"diversity": '),
        ("attention from the start", '"attention": w * ', '"attention": '),
        ("epochs from 0", "sigmoid_ramp_up(epoch + 1", "sigmoid_ramp_up(epoch"),
        ("attention not of length 1", "(F.normalize(x) - F.normalize(y))", "(x - y)"),
        ("no place is left alone", "(y - least).sign()", "(y - y + 1)"),
        ("a half of the places is left alone", "y.shape[1] // 3", "y.shape[1] // 2"),
        ("one weight decay", ', "weight_decay": self.fusion_weight_decay', ""),
        ("another peer is kept", "len(self.peers) - 1)}", "0)}"),
        ("the temperature is lost", "T, J = self.temperature", "T, J = 2.0"),
    ),
    *_edits(
        "switokd",
        "methods/papers/switokd.py",
        ("never a pause", "(~pauses).to(p.dtype)", "torch.ones_like(d_s)"),
        ("always a pause", "(~pauses).to(p.dtype)", "torch.zeros_like(d_s)"),
        ("pauses the other way round", "(~pauses)", "pauses"),
        ("a pause though it is behind", " & (d_t < d_s)", ""),
        ("a threshold without exponential", "torch.exp(-d_t / (d_t + d_s)) * d_t", "d_t"),
        ("the students' distance in the exponent", "torch.exp(-d_t /", "torch.exp(-d_s /"),
        ("a pause leaves the labels", "learns.amax() * ce_loss", "ce_loss"),
        ("all students must be out-run", "learns.amax()", "learns.amin()"),
        (
            "the larger network's target not held fixed",
            "kd_loss(larger, z_s.detach()",
            "kd_loss(larger, z_s",
        ),
        ("students' targets not held fixed", "z.detach()[None]", "z[None]"),
        ("the larger network is kept", "range(len(self.peers) - 1)", "range(len(self.peers))"),
        (
            "distances of predictions that are not softened",
            "(at_least_float32(z) / self.temperature)",
            "at_least_float32(z)",
        ),
        (
            "the first peer is the larger",
            "students, larger = z[:-1], z[-1]",
            "students, larger = z[1:], z[0]",
        ),
    ),
    *_edits(
        "mcl",
        "methods/papers/mcl.py",
        ("an image is its own likeness", "masked_fill(itself, 0.0)", "masked_fill(itself, 1.0)"),
        (
            "an image is among the others",
            "s.masked_fill(itself, -math.inf).logsumexp",
            "s.logsumexp",
        ),
        ("sum over images alike, not mean", " / total.clamp(min=1e-12)", ""),
        ("mean over images that are alone too", "(total > 0).sum().clamp(min=1)", "len(y)"),
        (
            "embeddings of any length",
            "F.normalize(at_least_float32(v), dim=-1)",
            "at_least_float32(v)",
        ),
        ("tau is lost", " / self.contrast_temperature", ""),
        (
            "the temperature is lost",
            "z, T = out.logits, self.temperature",
            "z, T = out.logits, 3.0",
        ),
        ("soft targets within not held fixed", "within.detach()[None]", "within[None]"),
        ("soft targets between not held fixed", "s.detach().transpose(0, 1)", "s.transpose(0, 1)"),
        ("soft between learns from itself", "s.detach().transpose(0, 1)", "s.detach()"),
        ("within and between exchanged", "(hard.sum() - vcl)", "vcl"),
        ("the ensemble not held fixed", 'out.extra["ensemble"].detach()', 'out.extra["ensemble"]'),
        ("of many peers all learn from the ensemble", "z if len(z) == 2 else z[-1:]", "z"),
        ("one weight is lost", "self.soft_vcl_weight * soft_vcl", "soft_vcl"),
    ),
]
