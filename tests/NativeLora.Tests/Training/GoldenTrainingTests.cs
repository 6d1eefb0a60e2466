using System.Text.Json;
using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Data;
using NativeLora.Devices.Cpu;
using NativeLora.Models;
using NativeLora.Tests.Checkpoints;
using NativeLora.Training;

namespace NativeLora.Tests.Training;

/// <summary>The trainer and the evaluator against the reference's runs.</summary>
public sealed class GoldenTrainingTests
{
    private const int Eos = 2;

    [SharedTheory]
    [InlineData("bert-cls", "lora-all")]
    [InlineData("llama-gqa", "lora-all")]
    public void The_trainer_follows_the_reference(string name, string variant)
    {
        var at = Path.Combine(Shared.Path("fixtures", "models", name), "adapters", variant);
        using var folder = new TemporaryFolder();
        using var steps = JsonDocument.Parse(File.ReadAllText(Path.Combine(at, "steps.json")));
        var (optimizer, schedule) = (steps.RootElement.GetProperty("optimizer"), steps.RootElement.GetProperty("schedule"));
        using var device = new CpuDevice(2);
        using var pretrained = PretrainedModel.Open(Shared.Path("fixtures", "models", name, "model"), device);
        var head = pretrained.Model.IsEncoder ? ModelHead.SequenceClassification : ModelHead.LanguageModel;
        var adapter = AdapterFile.Load(Path.Combine(at, "init"), pretrained.Modules(head));
        using var model = TrainableModel.WithAdapters(pretrained, head, adapter.Config, adapter.Weights);
        var train = new List<EncodedExample>();
        using var batches = SafeTensorsFile.Open(Shared.Path("fixtures", "models", name, "train.safetensors"));
        for (var k = 0; k < 3; k++)
            train.AddRange(Examples(batches, $"batch.{k}.", head));
        var options = new TrainerOptions
        {
            OutputFolder = folder.File("run"),
            FileOrder = true,
            BatchSize = train.Count / 3,
            MaxSteps = schedule.GetProperty("total_steps").GetInt32(),
            WarmupSteps = schedule.GetProperty("warmup_steps").GetInt32(),
            LearningRate = schedule.GetProperty("learning_rate").GetDouble(),
            MaxGradientNorm = steps.RootElement.GetProperty("clip_norm").GetDouble(),
            Adam = new AdamWOptions { WeightDecay = optimizer.GetProperty("weight_decay").GetDouble() },
            HiddenKeyId = head == ModelHead.LanguageModel ? Eos : null,
        };
        var watcher = new Watcher();
        using (var trainer = new Trainer(model, train, options, observer: watcher))
            trainer.Run();

        var expected = steps.RootElement.GetProperty("steps").EnumerateArray().ToList();
        Assert.Equal(expected.Count, watcher.Steps.Count);
        for (var s = 0; s < expected.Count; s++)
        {
            var loss = expected[s].GetProperty("loss").GetDouble();
            Assert.Equal(loss, watcher.Steps[s].Loss, 1e-5 * loss);
            var norm = expected[s].GetProperty("grad_norm").GetDouble();
            Assert.Equal(norm, watcher.Steps[s].GradientNorm, 5e-5 * norm);
            Assert.Equal(expected[s].GetProperty("learning_rate").GetDouble(), watcher.Steps[s].LearningRate, 1e-12);
        }
        using var final = SafeTensorsFile.Open(Path.Combine(at, "final", "adapter_model.safetensors"));
        using var ours = SafeTensorsFile.Open(Path.Combine(options.OutputFolder, "adapter_model.safetensors"));
        Assert.Equal(final.Tensors.Keys.Order(StringComparer.Ordinal), ours.Tensors.Keys.Order(StringComparer.Ordinal));
        foreach (var key in final.Tensors.Keys)
            Assert.True(Distance(final.ReadFloat32(key), ours.ReadFloat32(key)) <= 1e-4, key);
    }

    [SharedTheory]
    [InlineData("bert-cls")]
    [InlineData("bert-regression")]
    [InlineData("roberta-cls")]
    [InlineData("llama-gqa")]
    public void The_evaluator_gives_the_reference_s_loss_and_logits(string name)
    {
        using var device = new CpuDevice(2);
        using var pretrained = PretrainedModel.Open(Shared.Path("fixtures", "models", name, "model"), device);
        var head = pretrained.Model.IsEncoder ? ModelHead.SequenceClassification : ModelHead.LanguageModel;
        using var inputs = SafeTensorsFile.Open(Shared.Path("fixtures", "models", name, "inputs.safetensors"));
        using var outputs = SafeTensorsFile.Open(Shared.Path("fixtures", "models", name, "outputs.safetensors"));
        // Adapters just begun change nothing.
        var config = new LoraConfig { TaskType = pretrained.Model.IsEncoder ? "SEQ_CLS" : "CAUSAL_LM" };
        using var model = TrainableModel.WithAdapters(pretrained, head, config, training: false);
        var examples = Examples(inputs, "", head);
        using var evaluator = new Evaluator(model, examples, options: new EvaluatorOptions { BatchSize = examples.Count, HiddenKeyId = pretrained.Model.IsEncoder ? null : Eos });
        var result = evaluator.Run();
        var loss = outputs.ReadFloat32("loss")[0];
        Assert.Equal(loss, result.Loss!.Value, 1e-5 * loss);
        if (head == ModelHead.LanguageModel)
        {
            Assert.Equal(Math.Exp(result.Loss.Value), result.Perplexity);
            Assert.Empty(result.Logits);
            return;
        }
        Assert.True(Distance(outputs.ReadFloat32("logits"), result.Logits) <= 1e-5);
    }

    private static List<EncodedExample> Examples(SafeTensorsFile file, string prefix, ModelHead head)
    {
        var (rows, width) = ((int)file.Tensors[prefix + "input_ids"].Shape[0], (int)file.Tensors[prefix + "input_ids"].Shape[1]);
        var (ids, mask) = (file.ReadInt64(prefix + "input_ids"), file.ReadInt64(prefix + "attention_mask"));
        var types = file.Tensors.ContainsKey(prefix + "token_type_ids") ? file.ReadInt64(prefix + "token_type_ids") : new long[ids.Length];
        var labels = file.ReadFloat32(prefix + "labels");
        var examples = new List<EncodedExample>();
        for (var r = 0; r < rows; r++)
        {
            // Padding is what is neither seen nor has a label; a closing EOS is hidden but has one.
            var length = width;
            while (mask[r * width + length - 1] == 0 && (head != ModelHead.LanguageModel || labels[r * width + length - 1] == -100))
                length--;
            int[] Row(long[] of) => [.. of.AsSpan(r * width, length).ToArray().Select(v => (int)v)];
            examples.Add(head == ModelHead.LanguageModel
                ? EncodedExample.Causal(Row(ids), [.. labels.AsSpan(r * width, length).ToArray().Select(v => (int)v)], length - 1)
                : EncodedExample.Text(new TokenizedText(Row(ids), Row(types)), labels[r] == (int)labels[r] && labels[r] >= 0 ? (int)labels[r] : null, labels[r]));
        }
        return examples;
    }

    private static double Distance(float[] expected, float[] actual)
    {
        Assert.Equal(expected.Length, actual.Length);
        double off = 0, norm = 0;
        for (var i = 0; i < expected.Length; i++)
        {
            off += ((double)expected[i] - actual[i]) * ((double)expected[i] - actual[i]);
            norm += (double)expected[i] * expected[i];
        }
        return Math.Sqrt(off) / Math.Max(Math.Sqrt(norm), 1e-12);
    }
}
