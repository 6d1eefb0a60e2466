using NativeLora.Checkpoints;

namespace NativeLora.Tests.Models;

/// <summary>DeBERTa's forward as loops in double over one sequence, each part written as its definition says.</summary>
internal sealed class DebertaV2Reference(HfConfig config, Checkpoint checkpoint)
{
    private readonly int _hidden = config.GetInt("hidden_size");
    private readonly int _heads = config.GetInt("num_attention_heads");
    private readonly double _epsilon = config.GetDouble("layer_norm_eps", 1e-7);
    private readonly string _parts = config.Has("pos_att_type") ? config.Json.Split("pos_att_type")[1].Split("position")[0] : "";

    private bool Has(string part) => _parts[..Math.Min(_parts.Length, 20)].Contains(part, StringComparison.Ordinal);

    /// <summary>Hidden states after the embeddings and each layer, and logits.</summary>
    public (List<double[][]> States, double[] Logits) Run(int[] ids, int[] types)
    {
        const string Embeddings = "deberta.embeddings";
        var x = ids.Select((id, t) =>
        {
            var row = Table($"{Embeddings}.word_embeddings")[id];
            if (config.GetBool("position_biased_input", true))
                row = Sum(row, Table($"{Embeddings}.position_embeddings")[t]);
            return config.GetInt("type_vocab_size") > 0 ? Sum(row, Table($"{Embeddings}.token_type_embeddings")[types[t]]) : row;
        }).ToArray();
        if (config.Has("embedding_size"))
            x = [.. x.Select(row => Linear($"{Embeddings}.embed_proj", row, bias: false))];
        x = [.. x.Select(row => Norm($"{Embeddings}.LayerNorm", row))];
        List<double[][]> states = [x];
        for (var l = 0; l < config.GetInt("num_hidden_layers"); l++)
        {
            var at = $"deberta.encoder.layer.{l}";
            var mixed = Attention($"{at}.attention.self", x);
            x = [.. x.Select((row, t) => Norm($"{at}.attention.output.LayerNorm", Sum(row, Linear($"{at}.attention.output.dense", mixed[t]))))];
            x = [.. x.Select(row => Norm($"{at}.output.LayerNorm", Sum(row, Linear($"{at}.output.dense",
                Activate("hidden_act", Linear($"{at}.intermediate.dense", row))))))];
            states.Add(x);
        }
        return (states, Linear("classifier", Activate("pooler_hidden_act", Linear("pooler.dense", x[0]))));
    }

    private double[][] Attention(string at, double[][] x)
    {
        var (q, k, v) = (Project("query_proj"), Project("key_proj"), Project("value_proj"));
        var shared = config.GetBool("share_att_key", false);
        var relative = config.GetBool("relative_attention", false);
        var maxRelative = config.GetInt("max_relative_positions", -1) is > 0 and var most ? most : config.GetInt("max_position_embeddings");
        var buckets = config.GetInt("position_buckets", -1);
        var span = buckets > 0 ? buckets : maxRelative;
        var rows = relative ? Table("deberta.encoder.rel_embeddings") : [];
        if (relative)
            Assert.Equal(2 * span, rows.Length);
        if (config.GetString("norm_rel_ebd", "none") == "layer_norm")
            rows = [.. rows.Select(row => Norm("deberta.encoder.LayerNorm", row))];
        var keys = relative && Has("c2p") ? rows.Select(r => Linear($"{at}.{(shared ? "" : "pos_")}key_proj", r)).ToArray() : null;
        var queries = relative && Has("p2c") ? rows.Select(r => Linear($"{at}.{(shared ? "" : "pos_")}query_proj", r)).ToArray() : null;
        var width = _hidden / _heads;
        var scale = Math.Sqrt(width * (1.0 + (Has("c2p") ? 1 : 0) + (Has("p2c") ? 1 : 0)));
        var output = x.Select(_ => new double[_hidden]).ToArray();
        for (var head = 0; head < _heads; head++)
        {
            double Dot(double[] a, double[] b) => Enumerable.Range(head * width, width).Sum(d => a[d] * b[d]);
            for (var i = 0; i < x.Length; i++)
            {
                var scores = new double[x.Length];
                for (var j = 0; j < x.Length; j++)
                {
                    scores[j] = Dot(q[i], k[j]) / scale;
                    if (keys is not null)
                        scores[j] += Dot(q[i], keys[Math.Clamp(Bucket(i - j) + span, 0, 2 * span - 1)]) / scale;
                    // As the reference has it: the key's row of positions at minus the distance from key to query.
                    if (queries is not null)
                        scores[j] += Dot(k[j], queries[Math.Clamp(-Bucket(j - i) + span, 0, 2 * span - 1)]) / scale;
                }
                var total = scores.Sum(Math.Exp);
                for (var j = 0; j < x.Length; j++)
                    for (var d = head * width; d < (head + 1) * width; d++)
                        output[i][d] += Math.Exp(scores[j]) / total * v[j][d];
            }
        }
        return output;

        double[][] Project(string name) => [.. x.Select(row => Linear($"{at}.{name}", row))];

        int Bucket(int distance)
        {
            var middle = buckets / 2;
            if (buckets <= 0 || Math.Abs(distance) <= middle)
                return distance;
            var log = Math.Log(Math.Abs(distance) / (double)middle) / Math.Log((maxRelative - 1) / (double)middle) * (middle - 1);
            return Math.Sign(distance) * ((int)Math.Ceiling(log) + middle);
        }
    }

    private double[][] Table(string name)
    {
        var values = checkpoint.ReadFloat32($"{name}.weight");
        var columns = (int)checkpoint.Find($"{name}.weight")!.Shape[1];
        return [.. values.Select(v => (double)v).Chunk(columns)];
    }

    private double[] Linear(string name, double[] x, bool bias = true)
    {
        var weight = Table(name);
        var b = bias ? checkpoint.ReadFloat32($"{name}.bias") : new float[weight.Length];
        return [.. weight.Select((row, o) => b[o] + row.Zip(x, (w, v) => w * v).Sum())];
    }

    private double[] Norm(string name, double[] x)
    {
        var (weight, bias) = (checkpoint.ReadFloat32($"{name}.weight"), checkpoint.ReadFloat32($"{name}.bias"));
        var mean = x.Average();
        var deviation = Math.Sqrt(x.Average(v => (v - mean) * (v - mean)) + _epsilon);
        return [.. x.Select((v, i) => (v - mean) / deviation * weight[i] + bias[i])];
    }

    private double[] Activate(string key, double[] x) => config.GetString(key, "gelu") switch
    {
        "relu" => [.. x.Select(v => Math.Max(0, v))],
        "tanh" => [.. x.Select(Math.Tanh)],
        _ => [.. x.Select(v => 0.5 * v * (1 + Erf(v / Math.Sqrt(2))))],
    };

    // The series of Abramowitz and Stegun 7.1.6; activations are of order 1 here.
    private static double Erf(double x)
    {
        double term = x, sum = x;
        for (var n = 1; n < 200; n++)
            sum += term *= 2 * x * x / (2 * n + 1);
        return 2 / Math.Sqrt(Math.PI) * Math.Exp(-x * x) * sum;
    }

    private static double[] Sum(double[] a, double[] b) => [.. a.Zip(b, (u, v) => u + v)];
}
