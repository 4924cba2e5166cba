-- SPDX-License-Identifier: Apache-2.0
import qualified Data.Map.Strict as M
import Control.Concurrent
import Control.Exception
import Control.Monad
import System.IO
main :: IO ()
main = do
  hSetBuffering stdout LineBuffering
  let m = foldr (\i -> M.insertWith (+) (i * 7919 `mod` 10007) i) M.empty [1..200000 :: Int]
  print (M.size m, sum (M.elems m))
  mv <- newMVar (0 :: Int)
  ds <- forM [1..200] $ \i -> do { d <- newEmptyMVar; _ <- forkIO (forM_ [1..200] (\_ -> modifyMVar_ mv (return . (+ i))) >> putMVar d ()); return d }
  mapM_ takeMVar ds
  readMVar mv >>= print
  r <- try (evaluate (1 `div` (0 :: Int))) :: IO (Either ArithException Int)
  print r
  r2 <- try (evaluate (head ([] :: [Int]))) :: IO (Either ErrorCall Int)
  putStrLn (either (const "error call") show r2)
  print (length (show (product [1..3000 :: Integer])))
  error "the end"
