using System.Text.Json;
using NativeLora.Checkpoints;
using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Models;

namespace NativeLora.Cli.Demo;

/// <summary>The demo's own small Llama as a Hugging Face folder.</summary>
internal static class DemoBase
{
    /// <summary>Writes config and random weights.</summary>
    public static void WriteFresh(string folder, DemoSettings settings, DemoLanguage language)
    {
        var config = JsonSerializer.Serialize(
            new Dictionary<string, object>
            {
                ["architectures"] = new[] { "LlamaForCausalLM" },
                ["model_type"] = "llama",
                ["vocab_size"] = DemoLanguage.Vocabulary,
                ["hidden_size"] = settings.Hidden,
                ["intermediate_size"] = settings.Intermediate,
                ["num_hidden_layers"] = settings.Layers,
                ["num_attention_heads"] = settings.Heads,
                ["num_key_value_heads"] = settings.Heads,
                ["max_position_embeddings"] = language.Length,
                ["hidden_act"] = "silu",
                ["rms_norm_eps"] = 1e-6,
                ["rope_theta"] = 10000.0,
                ["tie_word_embeddings"] = false,
                ["bos_token_id"] = DemoLanguage.EndOfText,
                ["eos_token_id"] = DemoLanguage.EndOfText,
                ["torch_dtype"] = "float32",
            },
            new JsonSerializerOptions { WriteIndented = true, NewLine = "\n" });
        AtomicFile.WriteAllText(Path.Combine(folder, "config.json"), config + "\n");

        var graph = new Graph(Trainables.Everything);
        ModelRegistry.Create(HfConfig.Parse(config)).Build(graph, new BuildOptions { Head = ModelHead.LanguageModel, Loss = true, MaxLength = 1 });
        // Writers to the residual stream begin smaller the deeper the model is (GPT-2's rule), others keep the size of what they read.
        var intoResidual = 1 / Math.Sqrt(2.0 * settings.Layers);
        Write(folder, graph.Trainable.Select(t => (t.Name, t.Shape)), (name, shape) =>
        {
            var values = new float[shape.FixedRows * shape.Columns];
            if (IsVector(name))
            {
                Array.Fill(values, 1f);
                return values;
            }
            var random = SplitMix64.Named(settings.Seed, name);
            var deviation = name.Contains("embed", StringComparison.Ordinal) ? 1 : 1 / Math.Sqrt(shape.Columns);
            if (name.Contains("o_proj", StringComparison.Ordinal) || name.Contains("down_proj", StringComparison.Ordinal))
                deviation *= intoResidual;
            for (var i = 0; i < values.Length; i++)
                values[i] = (float)(deviation * random.NextGaussian());
            return values;
        });
    }

    /// <summary>Writes trained weights.</summary>
    public static void Write(string folder, HfConfig config, ParameterStore trained)
    {
        AtomicFile.WriteAllText(Path.Combine(folder, "config.json"), config.Json + "\n");
        Write(folder, trained.Names.Select(n => (n, Shape.Fixed(trained.Size(n).Rows, trained.Size(n).Columns))), (name, _) => trained.Read(name));
    }

    private static void Write(string folder, IEnumerable<(string Name, Shape Shape)> tensors, Func<string, Shape, float[]> values) =>
        SafeTensorsWriter.Write(Path.Combine(folder, "model.safetensors"),
            [.. tensors.Select(t => TensorToWrite.From(t.Name, IsVector(t.Name) ? [t.Shape.Columns] : [t.Shape.FixedRows, t.Shape.Columns], values(t.Name, t.Shape)))]);

    private static bool IsVector(string name) => name.Contains("norm", StringComparison.Ordinal);
}
