using System.CommandLine;
using System.Text.Json;
using NativeLora.Cli.Commands;

namespace NativeLora.Tests.Training;

/// <summary>The commands run, train and eval from end to end.</summary>
public sealed class CommandTests
{
    [Fact]
    public void Run_selects_trains_and_evaluates_and_eval_finds_the_same()
    {
        using var cli = new CliRun();
        var (code, output, error) = cli.Run("run", "--output", cli.File("out"), "--strategy", "last", "--epochs", "2", "--lr", "1e-2", "--batch-size", "8");
        Assert.True(code == 0, error);
        using var run = JsonDocument.Parse(output);
        Assert.Equal([1], run.RootElement.GetProperty("layers").EnumerateArray().Select(l => l.GetInt32()));
        var training = run.RootElement.GetProperty("training");
        Assert.Equal(16, training.GetProperty("steps").GetInt32());
        Assert.True(File.Exists(cli.File("out/selection.json")) && File.Exists(cli.File("out/report.json")));

        (code, output, error) = cli.Run("eval", "--adapter", cli.File("out"));
        Assert.True(code == 0, error);
        using var evaluation = JsonDocument.Parse(output);
        var (expected, found) = (training.GetProperty("evaluation").GetProperty("dev"), evaluation.RootElement.GetProperty("dev"));
        Assert.Equal(expected.GetProperty("loss").GetDouble(), found.GetProperty("loss").GetDouble());
        Assert.Equal(expected.GetProperty("accuracy").GetDouble(), found.GetProperty("accuracy").GetDouble());

        // Nothing of it is touched by a second one that was not told to.
        var selection = cli.Bytes("out/selection.json");
        (code, _, error) = cli.Run("run", "--output", cli.File("out"), "--strategy", "first");
        Assert.Equal(2, code);
        Assert.Contains("holds checkpoints of a training", error, StringComparison.Ordinal);
        Assert.Equal(selection, cli.Bytes("out/selection.json"));
        (code, output, error) = cli.Run("run", "--output", cli.File("out"), "--strategy", "first", "--overwrite", "--epochs", "1");
        Assert.True(code == 0, error);
        using var again = JsonDocument.Parse(output);
        Assert.Equal([0], again.RootElement.GetProperty("layers").EnumerateArray().Select(l => l.GetInt32()));
    }

    [Fact]
    public void The_names_of_the_classes_stay_with_the_adapter()
    {
        using var cli = new CliRun();
        // Others than those of the base's config.
        File.WriteAllText(cli.File("data.tsv"), File.ReadAllText(cli.File("data.tsv")).Replace("\tno", "\tham", StringComparison.Ordinal).Replace("\tyes", "\tspam", StringComparison.Ordinal));
        var (code, _, error) = cli.Run("train", "--output", cli.File("out"), "--max-steps", "2", "--batch-size", "8");
        Assert.True(code == 0, error);
        Assert.Equal("""["ham","spam"]""", Compact(cli.File("out/labels.json")));
        Assert.Equal("""["ham","spam"]""", Compact(cli.File("out/checkpoints/step-2/labels.json")));

        // A file with one of the classes only: its ids are the training's, not 0.
        File.WriteAllText(cli.File("some.tsv"), "text\tlabel\nwaa wab\tspam\nwab wba\tspam\n");
        var predicted = Predict("--model", cli.File("model"), "--adapter", cli.File("out"));
        Assert.All(predicted, label => Assert.Contains(label, (string[])["ham", "spam"]));
        Assert.Equal(predicted.Average(l => l == "spam" ? 1.0 : 0), Accuracy("--model", cli.File("model"), "--adapter", cli.File("out")));

        // A merged model keeps them too.
        Invoke(MergeCommand.Create(), "--model", cli.File("model"), "--adapter", cli.File("out"), "--output", cli.File("merged"));
        Assert.Equal(predicted, Predict("--model", cli.File("merged")));
        Assert.Equal(predicted.Average(l => l == "spam" ? 1.0 : 0), Accuracy("--model", cli.File("merged")));

        // No name breaks a table.
        File.WriteAllText(cli.File("out/labels.json"), """["n\to","yes\n"]""");
        Assert.Equal("line\tlabel\tn o\tyes ", Cli.CliRun.Of("predict", "--data", cli.File("some.tsv"), "--model", cli.File("model"), "--adapter", cli.File("out"))
            .AssertDone().Output.Split('\n')[0].TrimEnd('\r'));

        // A list that is not the adapter's is not believed.
        File.WriteAllText(cli.File("out/labels.json"), """["ham","spam","maybe"]""");
        Assert.Contains("names 3 classes, but the adapter has 2", Refused(), StringComparison.Ordinal);
        File.WriteAllText(cli.File("out/labels.json"), """["no","no"]""");
        Assert.Contains("labels.json: is not a JSON list", Refused(), StringComparison.Ordinal);
        File.WriteAllText(cli.File("out/labels.json"), "[1");
        Assert.Contains("labels.json: is not a JSON list", Refused(), StringComparison.Ordinal);

        string[] Predict(params string[] model)
        {
            var run = Cli.CliRun.Of(["predict", "--data", cli.File("some.tsv"), "--json", .. model]).AssertDone();
            return [.. run.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(l => JsonDocument.Parse(l).RootElement.GetProperty("label").GetString()!)];
        }

        double Accuracy(params string[] model)
        {
            var run = Cli.CliRun.Of(["eval", "--task", "text", "--data", cli.File("some.tsv"), "--json", .. model]).AssertDone();
            return JsonDocument.Parse(run.Output).RootElement.GetProperty("data").GetProperty("accuracy").GetDouble();
        }

        string Refused() => Assert.Throws<InputException>(() =>
            Invoke(PredictCommand.Create(), "--model", cli.File("model"), "--adapter", cli.File("out"), "--text", "waa")).Message;
    }

    [Fact]
    public void Saving_memory_is_told_and_changes_no_bit()
    {
        using var cli = new CliRun();
        JsonElement Train(string name, params string[] how)
        {
            var (code, output, error) = cli.Run("train", ["--output", cli.File(name), "--max-steps", "2", "--batch-size", "8", .. how]);
            Assert.True(code == 0, error);
            return JsonDocument.Parse(output).RootElement;
        }
        var plain = Train("plain");
        Assert.False(plain.TryGetProperty("recompute", out _));
        var planned = plain.GetProperty("planned_bytes").GetInt64();
        var memory = plain.GetProperty("memory");
        Assert.Equal(planned + memory.GetProperty("program_before").GetInt64(), memory.GetProperty("predicted_peak").GetInt64());
        Assert.Equal(memory.GetProperty("measured_peak").GetInt64() - memory.GetProperty("predicted_peak").GetInt64(), memory.GetProperty("difference").GetInt64());
        if (OperatingSystem.IsLinux())
            Assert.InRange(memory.GetProperty("resident_weight_files").GetInt64(), 1, new FileInfo(cli.File("model/model.safetensors")).Length + 8192);

        var recomputed = Train("recomputed", "--recompute", "all").GetProperty("recompute");
        Assert.Equal(2, recomputed.GetProperty("layers").GetArrayLength());
        Assert.True(recomputed.GetProperty("extra_flops_per_step").GetInt64() > 0);
        Assert.Equal(File.ReadAllBytes(cli.File("plain/adapter_model.safetensors")), File.ReadAllBytes(cli.File("recomputed/adapter_model.safetensors")));
        Assert.Empty(Train("enough", "--memory-budget", "1GiB").GetProperty("recompute").GetProperty("layers").EnumerateArray());

        var (refused, _, said) = cli.Run("train", "--output", cli.File("little"), "--max-steps", "2", "--memory-budget", "1MiB");
        Assert.Equal(2, refused);
        Assert.Contains("more than the memory budget of 1.0 MiB", said, StringComparison.Ordinal);
        Assert.False(Directory.Exists(cli.File("little/checkpoints")));
    }

    [Fact]
    public void A_model_trained_in_full_stands_on_its_own()
    {
        using var cli = new CliRun();
        var (code, output, error) = cli.Run("train", "--output", cli.File("out"), "--full", "--max-steps", "2", "--batch-size", "8");
        Assert.True(code == 0, error);
        var expected = JsonDocument.Parse(output).RootElement.GetProperty("evaluation").GetProperty("dev").GetProperty("loss").GetDouble();
        var run = Cli.CliRun.Of("eval", "--model", cli.File("out"), "--task", "text", "--data", cli.File("data.tsv"), "--json").AssertDone();
        Assert.Equal(expected, JsonDocument.Parse(run.Output).RootElement.GetProperty("data").GetProperty("loss").GetDouble());
        using var config = JsonDocument.Parse(cli.Bytes("out/config.json"));
        Assert.Equal("BertForSequenceClassification", config.RootElement.GetProperty("architectures")[0].GetString());
        Assert.Equal("yes", config.RootElement.GetProperty("id2label").GetProperty("1").GetString());
    }

    [Theory]
    [InlineData(1e-5, "--dora", "--bias", "all")]
    [InlineData(1e-5, "--init", "pissa")]
    [InlineData(0, "--init", "olora", "--save-residual")]
    [InlineData(0, "--init", "pissa_niter_4", "--dora", "--save-residual")]
    public void Eval_finds_what_run_found(double tolerance, params string[] variant)
    {
        using var cli = new CliRun();
        var (code, output, error) = cli.Run("run", ["--output", cli.File("out"), "--strategy", "last", "--epochs", "1", "--lr", "1e-2", "--batch-size", "8", .. variant]);
        Assert.True(code == 0, error);
        using var run = JsonDocument.Parse(output);
        (code, output, error) = cli.Run("eval", "--adapter", cli.File("out"));
        Assert.True(code == 0, error);
        using var evaluation = JsonDocument.Parse(output);
        var expected = run.RootElement.GetProperty("training").GetProperty("evaluation").GetProperty("dev").GetProperty("loss").GetDouble();
        Assert.InRange(evaluation.RootElement.GetProperty("dev").GetProperty("loss").GetDouble() - expected, -tolerance, tolerance);
        (code, _, error) = cli.Run("eval", "--adapter", cli.File("out/checkpoints/step-8"));
        Assert.True(code == 0, error);
    }

    [Theory]
    [InlineData("--init corda: give", "--output", "{out}", "--init", "corda")]
    [InlineData("--bias some: give", "--output", "{out}", "--bias", "some")]
    [InlineData("needs a rank of at most", "--output", "{out}", "--init", "pissa", "--r", "99")]
    [InlineData("DoRA (use_dora) on the embedding", "--output", "{out}", "--dora", "--targets", "word_embeddings")]
    [InlineData("is a file", "--output", "{model}/config.json")]
    [InlineData("is a file", "--output", "{model}/config.json/out")]
    [InlineData("batch size is 0", "--output", "{out}", "--batch-size", "0")]
    [InlineData("number of tokens of a batch is -1", "--output", "{out}", "--batch-tokens", "-1")]
    [InlineData("learning rate is NaN", "--output", "{out}", "--lr", "NaN")]
    [InlineData("warm-up ratio is 2", "--output", "{out}", "--warmup-ratio", "2")]
    [InlineData("--instruction-field has no meaning with --task text", "--output", "{out}", "--instruction-field", "x")]
    [InlineData("--base-dropout maybe: give on or off", "--output", "{out}", "--base-dropout", "maybe")]
    [InlineData("give one of them", "--output", "{out}", "--batch-size", "2", "--batch-tokens", "9")]
    [InlineData("more than one of --layers, --selection and --full", "--output", "{out}", "--layers", "1", "--full")]
    [InlineData("no learning rate schedule sine", "--output", "{out}", "--schedule", "sine")]
    [InlineData("number of epochs is 0", "--output", "{out}", "--epochs", "0")]
    [InlineData("there is no metric f2", "--output", "{out}", "--keep-best", "f2")]
    public void Bad_usage_is_named_before_anything_is_written(string message, params string[] arguments)
    {
        using var cli = new CliRun();
        string[] given = ["--model", cli.File("model"), "--task", "text", "--data", cli.File("data.tsv"), "--dev", cli.File("data.tsv"), "--json",
            .. arguments.Select(a => a.Replace("{out}", cli.File("out"), StringComparison.Ordinal).Replace("{model}", cli.File("model"), StringComparison.Ordinal))];
        var error = Assert.Throws<InputException>(() => { TrainCommand.Create().Parse(given).Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false }); });
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
        Assert.False(Directory.Exists(cli.File("out")));
    }

    private static string Compact(string path) => JsonSerializer.Serialize(JsonDocument.Parse(File.ReadAllBytes(path)).RootElement);

    private static void Invoke(Command command, params string[] arguments) =>
        command.Parse(arguments).Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false });
}
