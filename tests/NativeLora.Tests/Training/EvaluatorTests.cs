using NativeLora.Data;
using NativeLora.Tests.Checkpoints;
using NativeLora.Training;

namespace NativeLora.Tests.Training;

public sealed class EvaluatorTests
{
    [Fact]
    public void Loss_and_metrics_follow_from_the_logits_however_the_batches_are_cut()
    {
        using var folder = new TemporaryFolder();
        using var tiny = TinyModel.Open(folder.File("model"), isCausal: false);
        var examples = TinyModel.Examples(false, 23, 5);
        using var evaluator = new Evaluator(tiny.Model, examples, options: new EvaluatorOptions { BatchSize = 5 });
        var result = evaluator.Run();
        double loss = 0, right = 0;
        for (var i = 0; i < examples.Length; i++)
        {
            var (a, b) = ((double)result.Logits[2 * i], (double)result.Logits[2 * i + 1]);
            loss += Math.Log(Math.Exp(a) + Math.Exp(b)) - (examples[i].ClassLabel == 0 ? a : b);
            Assert.Equal(b > a ? 1 : 0, result.Classes[i]);
            right += result.Classes[i] == examples[i].ClassLabel ? 1 : 0;
        }
        Assert.Equal(loss / 23, result.Loss!.Value, 1e-5);
        Assert.Equal(right / 23, result.Value("accuracy")!.Value, 1e-12);
        Assert.Null(result.Perplexity);

        using var single = new Evaluator(tiny.Model, examples, options: new EvaluatorOptions { BatchSize = 1 });
        var alone = single.Run();
        Assert.Equal(result.Loss.Value, alone.Loss!.Value, 1e-5);
        for (var i = 0; i < result.Logits.Length; i++)
            Assert.Equal(result.Logits[i], alone.Logits[i], 1e-5f);
    }

    [Fact]
    public void Run_again_it_gives_the_same_until_the_weights_change()
    {
        using var folder = new TemporaryFolder();
        using var tiny = TinyModel.Open(folder.File("model"), isCausal: true);
        using var evaluator = new Evaluator(tiny.Model, TinyModel.Examples(true, 9, 5));
        var (first, second) = (evaluator.Run(), evaluator.Run());
        Assert.Equal(first.Loss, second.Loss);
        Assert.Equal(Math.Exp(first.Loss!.Value), first.Perplexity);
        var name = tiny.Model.Parameters.Names.First(n => n.Contains("lora_B", StringComparison.Ordinal));
        var values = tiny.Model.Parameters.Read(name);
        Array.Fill(values, 0.5f);
        tiny.Model.Parameters.Write(name, values);
        Assert.NotEqual(first.Loss, evaluator.Run().Loss);
    }

    [Fact]
    public void Examples_without_labels_give_predictions_only_and_are_left_out_of_the_rest()
    {
        using var folder = new TemporaryFolder();
        using var tiny = TinyModel.Open(folder.File("model"), isCausal: false);
        var labelled = TinyModel.Examples(false, 8, 5);
        EncodedExample[] bare = [.. TinyModel.Examples(false, 8, 6).Select(e => EncodedExample.Text(new TokenizedText(e.Ids, e.TypeIds)))];
        using var some = new Evaluator(tiny.Model, [.. labelled.Zip(bare).SelectMany(p => new[] { p.First, p.Second })]);
        using var all = new Evaluator(tiny.Model, labelled);
        using var none = new Evaluator(tiny.Model, bare);
        Assert.Equal(all.Run().Loss!.Value, some.Run().Loss!.Value, 1e-6);
        Assert.Equal(all.Run().Value("accuracy"), some.Run().Value("accuracy"));
        var result = none.Run();
        Assert.Null(result.Loss);
        Assert.Empty(result.Metrics);
        Assert.Equal(8, result.Classes.Length);
    }

    [Fact]
    public void Metrics_that_do_not_fit_the_head_and_cancelling_are_told()
    {
        using var folder = new TemporaryFolder();
        using var tiny = TinyModel.Open(folder.File("model"), isCausal: false);
        var examples = TinyModel.Examples(false, 4, 5);
        var error = Assert.Throws<InputException>(() => { new Evaluator(tiny.Model, examples, Metrics.For(GlueTask.Get("stsb"))).Dispose(); });
        Assert.Contains("pearson compares scores, but the model has 2 outputs", error.Message, StringComparison.Ordinal);
        using var evaluator = new Evaluator(tiny.Model, examples);
        Assert.Throws<OperationCanceledException>(() => evaluator.Run(new CancellationToken(true)));
    }
}
