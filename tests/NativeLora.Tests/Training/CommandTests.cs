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
    [InlineData("no output folder")]
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
            .. arguments.Select(a => a.Replace("{out}", cli.File("out"), StringComparison.Ordinal))];
        var error = Assert.Throws<InputException>(() => { TrainCommand.Create().Parse(given).Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false }); });
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
        Assert.False(Directory.Exists(cli.File("out")));
    }
}
