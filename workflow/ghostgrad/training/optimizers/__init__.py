"""Update rules of the LALC paper (sec. 3, app. B) and of the papers that it compares with.

One module per rule; `build` has the table of all. In the formulas, per tensor: w are its weights,
g the gradient of the mini-batch's mean loss, beta the weight decay, mu the momentum, gamma the
learning rate of this update, eta the trust coefficient, |.| the Euclidean norm, lambda the trust
ratio of the tensor.

    sgd    m <- mu m + g + beta w; w <- w - gamma h, where h = m, or with Nesterov momentum
           h = g + beta w + mu m.
    lars   lambda = eta |w| / (|g| + beta |w|); m <- mu m + gamma lambda (g + beta w); w <- w - m
           (You et al. 2017).
    clars  LARS with the mean over the samples i of |g_i| in place of |g|, and with the term
           beta |w| of the denominator only under `decay_in_trust` (Huo et al. 2021).
    larc   g' = min(lambda / gamma, 1) (g + beta w) with the lambda of LARS, then SGD's rule on g'
           without decay (NVIDIA apex).
    lalc   m <- mu m + g + beta w; lambda = eta |w| / |h|; w <- w - min(gamma, lambda) h, with h as
           in SGD. `raw_norm`, the paper's ablation, has lambda = eta |w| / (|g| + beta |w|).
    lamb   m <- mu m + (1 - mu) g; v <- beta2 v + (1 - beta2) g^2;
           u = m^ / (sqrt(v^) + eps) + beta w with the bias-corrected m^ and v^;
           w <- w - gamma |w| / |u| u (You et al. 2019).

The learning rate gamma is inside the momentum buffer m in lars and clars, and outside of it in sgd,
lalc and lamb. In larc gamma itself is outside, but the factor min(lambda / gamma, 1) inside the
buffer depends on it.

Where a norm is 0, a rule falls back to the plain learning rate: lambda = 1 for LARS, CLARS and
LAMB, lambda = gamma for LARC and LALC. Otherwise a tensor that begins at 0, such as every beta of
BN, would stay there under each of these rules. With `adapt_vectors: false`, tensors of one
dimension follow the plain learning rate too.

All tensors of a group are updated together with torch's multi-tensor (foreach) functions, and their
norms are copied to the host once per update.
"""
