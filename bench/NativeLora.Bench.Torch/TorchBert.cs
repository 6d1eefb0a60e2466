using NativeLora.Bench.Compare;
using NativeLora.Graphs;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace NativeLora.Bench.Torch;

/// <summary>
/// The step of a BERT classifier in libtorch, with the weights and the adapters of this engine's: no dropout, gradients for the
/// adapters and the classifier only. Below the lowest adapter nothing needs a gradient, so autograd records nothing there.
/// </summary>
internal sealed class TorchBert : IDisposable
{
    private readonly Dictionary<string, torch.Tensor> _weights = new(StringComparer.Ordinal);
    private readonly List<Parameter> _trained = [];
    private readonly optim.Optimizer _optimizer;
    private readonly torch.Tensor _ids, _types, _positions, _labels;
    private readonly int _layers, _hidden, _heads, _batch, _length;
    private readonly double _epsilon, _scaling;

    public TorchBert(EngineStep engine, TrainingCase timed)
    {
        var model = engine.Pretrained.Model;
        (_layers, _hidden, _heads) = (model.Layers, model.HiddenSize, model.Heads);
        (_batch, _length, _scaling) = (timed.Batch, timed.Length, TrainingCase.Alpha / timed.Rank);
        _epsilon = model.Config.GetFloat("layer_norm_eps", 1e-12f);
        var graph = engine.Session.Session.Plan.Graph;
        foreach (var weight in graph.Weights.Where(w => w.Category == TensorCategory.Weight))
        {
            FreshWeight? fresh = graph.Fresh.TryGetValue(weight, out var rule) ? rule : null;
            _weights[weight.Name] = Copy(engine.Pretrained.Weights.Values(weight, fresh), weight.Shape.FixedRows, weight.Shape.Columns);
        }
        foreach (var name in engine.Model.Parameters.Names)
        {
            var (rows, columns) = engine.Model.Parameters.Size(name);
            var parameter = new Parameter(Copy(engine.Model.Parameters.Read(name), rows, columns), requires_grad: true);
            _trained.Add(parameter);
            _weights[name] = parameter;
        }
        _optimizer = optim.AdamW(_trained, lr: TrainingCase.LearningRate, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0);
        var tokens = _batch * _length;
        _ids = Ids(engine.Batch.TokenIds, tokens);
        _types = Ids(engine.Batch.TypeIds, tokens);
        _positions = Ids(engine.Batch.Positions, tokens);
        _labels = Ids(engine.Batch.ClassLabels, _batch);
    }

    public (double Loss, double GradientNorm) Step()
    {
        using var scope = NewDisposeScope();
        _optimizer.zero_grad();
        var loss = F.cross_entropy(Logits(), _labels);
        loss.backward();
        var norm = nn.utils.clip_grad_norm_(_trained, TrainingCase.MaxNorm);
        _optimizer.step();
        return (loss.item<float>(), norm);
    }

    private torch.Tensor Logits()
    {
        const string at = "bert.embeddings";
        var x = Weight($"{at}.word_embeddings").index_select(0, _ids)
            .add_(Weight($"{at}.token_type_embeddings").index_select(0, _types))
            .add_(Weight($"{at}.position_embeddings").index_select(0, _positions));
        x = Norm($"{at}.LayerNorm", x);
        for (var l = 0; l < _layers; l++)
            x = Layer(x, $"bert.encoder.layer.{l}");
        var first = x.view(_batch, _length, _hidden).select(1, 0);
        return Linear("classifier", Linear("bert.pooler.dense", first).tanh());
    }

    private torch.Tensor Layer(torch.Tensor x, string at)
    {
        var q = Heads(Linear($"{at}.attention.self.query", x));
        var k = Heads(Linear($"{at}.attention.self.key", x));
        var v = Heads(Linear($"{at}.attention.self.value", x));
        var mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, _hidden);
        x = Norm($"{at}.attention.output.LayerNorm", Linear($"{at}.attention.output.dense", mixed) + x);
        var inner = F.gelu(Linear($"{at}.intermediate.dense", x));
        return Norm($"{at}.output.LayerNorm", Linear($"{at}.output.dense", inner) + x);
    }

    /// <summary>[tokens, hidden] as [batch, heads, length, width of a head].</summary>
    private torch.Tensor Heads(torch.Tensor x) => x.view(_batch, _length, _heads, _hidden / _heads).transpose(1, 2);

    /// <summary>x Wᵀ + b, and the adapter's term added by the product that makes it.</summary>
    private torch.Tensor Linear(string name, torch.Tensor x)
    {
        var y = F.linear(x, Weight(name), _weights[$"{name}.bias"]);
        if (!_weights.TryGetValue($"{name}.lora_A.weight", out var a))
            return y;
        return y.addmm(F.linear(x, a), _weights[$"{name}.lora_B.weight"].t(), beta: 1, alpha: (float)_scaling);
    }

    private torch.Tensor Norm(string name, torch.Tensor x) =>
        F.layer_norm(x, [_hidden], Weight(name), _weights[$"{name}.bias"], _epsilon);

    private torch.Tensor Weight(string name) => _weights[$"{name}.weight"];

    private static torch.Tensor Copy(float[] values, int rows, int columns) =>
        rows == 1 ? torch.tensor(values, [columns]) : torch.tensor(values, [rows, columns]);

    private static torch.Tensor Ids(int[] ids, int count) => torch.tensor([.. ids.Take(count).Select(i => (long)i)], [count]);

    public void Dispose()
    {
        _optimizer.Dispose();
        foreach (var weight in _weights.Values)
            weight.Dispose();
        _ids.Dispose();
        _types.Dispose();
        _positions.Dispose();
        _labels.Dispose();
    }
}
